# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m physmem`: the command line where no script is installed."""

from physmem.cli.main import main

if __name__ == "__main__":
    main()
