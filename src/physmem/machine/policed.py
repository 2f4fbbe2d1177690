# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of a machine that knows its policy: hooks it in, and tells when an answer was wrong."""

from collections.abc import Callable
from typing import Any

from physmem.lib.errors import PolicyError
from physmem.lib.jit import ready
from physmem.machine.base import MachineBase
from physmem.machine.policy import Policy, attach_policy, check_policy, load_policy
from physmem.mm.entry import do_alloc_pages, do_free_pages


class Policed(MachineBase):
    """Policy of a machine."""

    _policy: Policy | None = None

    @property
    def policy(self) -> Policy | None:
        """The policy that decides here, or None: the kernel's rules."""
        return self._policy

    def set_policy(self, policy: Policy | str | None, *, scratch: Any = None) -> None:
        """Let a policy decide from now on; None: the kernel's rules again.

        Parameters
        ----------
        policy : Policy, str or None
            What `physmem.policy` made, or where to find it ("FILE.py", "FILE.py:NAME",
            "module:NAME").
        scratch : array of int64, optional
            What the policy goes on with in `zone.scratch`; by default all 0.

        Raises
        ------
        PolicyError
            It cannot be loaded or compiled.

        Examples
        --------
        >>> from physmem import Machine
        >>> machine = Machine.build("64MiB")
        >>> machine.set_policy("physmem.lab.policies:FreeToTail")
        >>> machine.policy.name
        'FreeToTail'
        """
        chosen = load_policy(policy) if isinstance(policy, str) else policy
        if chosen is not None and not isinstance(chosen, Policy):
            raise PolicyError(f"{chosen!r} is no policy: make one with @physmem.policy")
        self.tables = attach_policy(self.tables, chosen, scratch)
        self._adopt_policy(chosen)

    def _adopt_policy(self, policy: Policy | None) -> None:
        """Remember a policy whose hooks are in the tables already, and check after each request."""
        self._policy = policy
        alloc, free = ready(do_alloc_pages), ready(do_free_pages)
        self._alloc = alloc if policy is None else self._checked(alloc, free)
        self._free = free if policy is None else self._checked(free)

    def check_policy(self) -> None:
        """Raise what the policy did wrong in requests that did not tell (slabs, page tables).

        Raises
        ------
        PolicyError
            The first wrong answer.
        """
        if self._policy is not None:
            check_policy(self.tables, self.layout.zone_names)

    def _check_bulk(self, pfns: list[int], cpu: int) -> None:
        """Raise what the policy did wrong in a bulk request; its frames are freed."""
        try:
            self.check_policy()
        except PolicyError:
            for pfn in pfns:
                ready(do_free_pages)(self._h, pfn, 0, cpu)
            self.tables.zones["verdict"] = 0
            raise

    def _checked(
        self, kernel: Callable[..., int], undo: Callable[..., int] | None = None
    ) -> Callable[..., int]:
        """Kernel that raises what a policy does wrong; `undo` frees what it allocated meanwhile."""

        def call(h: int, *arguments: int) -> int:
            answer = kernel(h, *arguments)
            try:
                self.check_policy()
            except PolicyError:
                if undo is not None and answer >= 0:
                    undo(h, answer, arguments[0], arguments[3])
                    self.tables.zones["verdict"] = 0
                raise
            return answer

        return call
