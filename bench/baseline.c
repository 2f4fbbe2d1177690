// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The replay of physmem as one would write it in C, to have something to measure against.
 *
 * It works on the buffers of physmem.machine.tables and physmem.replay.requests: the structs
 * below repeat the layouts of physmem.mm.mmzone, physmem.replay.requests and
 * physmem.replay.engine. bench/run.py compiles it, checks the sizes of the structs, runs both on
 * equal tables and demands equal results to the last byte.
 *
 * Linux: mm/page_alloc.c (6.1): rules of other kernels are not repeated here.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef int64_t i64;

enum { U = 0, M = 1, R = 2, PCPTYPES = 3, HIGHATOMIC = 3, TYPES = 6 };
enum { NR_ORDERS = 14, NR_LISTS = 14, NR_LOW_LISTS = 12, NR_ZONES = 6, COSTLY_ORDER = 3 };
enum { NONE = -1 };
enum { ON_PCP = 0x40, HEAD_USED = 0x80 };                /* struct page.order */
enum { USED = 1, MOVABLE = 2, PREPARED = 4 };            /* struct page.flags */
enum { WMARK_MIN, WMARK_LOW, WMARK_HIGH };
enum { ZONE_BOOSTED = 1, ZONE_RECLAIM = 2 };

enum {
	GFP_DMA = 0x01, GFP_HIGHMEM = 0x02, GFP_DMA32 = 0x04, GFP_MOVABLE = 0x08,
	GFP_RECLAIMABLE = 0x10, GFP_HIGH = 0x20, GFP_ATOMIC = 0x200, GFP_DIRECT = 0x400, GFP_KSWAPD = 0x800,
	GFP_RETRY_MAYFAIL = 0x4000, GFP_NORETRY = 0x10000, GFP_MEMALLOC = 0x20000, GFP_NOMEMALLOC = 0x80000, GFP_THISNODE = 0x200000,
};

enum {
	A_MIN = 0, A_LOW = 1, A_HIGH = 2, A_WMARK = 3, A_NO_WMARK = 0x4, A_OOM = 0x8, A_NON_BLOCK = 0x10,
	A_MIN_RESERVE = 0x20, A_CMA = 0x80, A_NOFRAGMENT = 0x100, A_HIGHATOMIC = 0x200,
	A_KSWAPD = 0x800, A_BUSY = 0x1000,
	A_RESERVES = A_NON_BLOCK | A_MIN_RESERVE | A_HIGHATOMIC | A_OOM,
};

enum { EV_LOCKED = 4, EV_DRAIN = 5, EV_EXTFRAG = 6 };
enum { ALLOC = 1, FREE, PREPARE, COMMIT, BULK, DRAIN_ALL, DRAIN_BATCH };
enum { RACE_BUSY = 1, RACE_NODE = 4 };
#define NO_TWIN 0xffffffffu

struct page {
	u32 next, prev;
	u8 order, flags, mt, zone;
	u32 owner;
};

struct free_area {
	i64 nr_free;
	i64 head[TYPES];
};

struct pcp {
	i64 count, high, batch, free_factor, expire;
	i64 cold_count, cold_high, cold_batch;
	i64 high_min, high_max, alloc_factor, free_count, flags;
	i64 head[NR_LISTS];
};

struct zone {
	i64 number, node, zone_idx;
	i64 start_pfn, end_pfn, spanned, present, managed;
	i64 nr_free, nr_free_cma, nr_free_highatomic;
	i64 watermark[4], boost;
	i64 nr_highatomic;
	i64 lowmem_reserve[NR_ZONES];
	i64 nr_isolate, flags;
	i64 block_order, max_order, thp;
	i64 cma_type, isolate_type, grouping_disabled, boost_factor, features;
	i64 nr_steals, nr_claims;
	i64 first_block, movable_idx;
	i64 placement[7 + NR_ORDERS + 1 + 5 + 6];        /* other rules of placement: none here */
	struct free_area area[NR_ORDERS];
	struct page *map;
	i64 map_len;
	u8 *block_type;
	i64 block_type_len;
	struct pcp *pageset;
	i64 pageset_len;
	i64 *trace;
	i64 trace_len;
	void *more[8];                                   /* for other rules of placement */
};

struct zoneref {
	i64 zone, zone_idx;
};

struct memory {
	i64 nr_zones, nr_nodes, nr_cpus, max_pfn;
	i64 normal, movable, highmem, dma32, dma;
	i64 nr_failed, nr_slowpath, block_order, features, placement;
	struct page *map;
	i64 map_len;
	struct zone *zones;
	i64 zones_len;
	struct zoneref *zonelist;
	i64 zonelist_len;
	i64 *cpu_node;
	i64 cpu_node_len;
	u8 *block_zone;
	i64 block_zone_len;
	i64 *trace;
	i64 trace_len;
};

struct request {
	u32 row, first, nr_expected, pfn, gfp;
	u16 cpu;
	u8 kind, order, race, node;
};

typedef struct run {
	struct memory *memory;
	i64 strict, next_request, stop_at_divergence;
	i64 diverged, allocations, exact;
	i64 consequences_exact, consequences_extra;
	i64 frees, frees_unmatched;
	i64 bulk_pages, bulk_failed, node_requests, trace_overflow, decays_after_frees, digest;
	struct request *requests;
	i64 requests_len;
	i64 *expected;
	i64 expected_len;
	i64 *outcome;
	i64 outcome_len;
	i64 *predicted;
	i64 predicted_len;
	u32 *twin;
	i64 twin_len;
	i64 *zone_requests;
	i64 zone_requests_len;
	i64 *zone_exact;
	i64 zone_exact_len;
} Run;

static inline i64 min(i64 a, i64 b) { return a < b ? a : b; }
static inline i64 max(i64 a, i64 b) { return a > b ? a : b; }

/* Tracepoints */

static inline void emit(struct zone *z, i64 kind, i64 pfn, i64 order, i64 mt, i64 arg)
{
	if (!z->trace_len)
		return;
	i64 at = ++z->trace[0];
	if (at < z->trace_len)
		z->trace[at] = pfn << 32 | kind << 24 | order << 16 | mt << 8 | arg;
}

/* Rings of frames */

static inline void list_insert(struct page *map, u32 pfn, u32 before, u32 after)
{
	map[pfn].prev = before;
	map[pfn].next = after;
	map[before].next = pfn;
	map[after].prev = pfn;
}

static inline void list_push(struct page *map, u32 pfn, u32 head)
{
	list_insert(map, pfn, head, map[head].next);
}

static inline void list_append(struct page *map, u32 pfn, u32 head)
{
	list_insert(map, pfn, map[head].prev, head);
}

static inline void list_remove(struct page *map, u32 pfn)
{
	u32 before = map[pfn].prev, after = map[pfn].next;

	map[before].next = after;
	map[after].prev = before;
}

static inline bool list_is_empty(const struct page *map, i64 head)
{
	return map[head].next == head;
}

/* Pageblocks and free lists */

static inline i64 block_type(const struct zone *z, i64 pfn)
{
	return z->block_type[(pfn >> z->block_order) - z->first_block];
}

static void set_block_type(struct zone *z, i64 pfn, i64 mt)
{
	if (z->grouping_disabled && mt < PCPTYPES)
		mt = U;
	z->block_type[(pfn >> z->block_order) - z->first_block] = mt;
}

static inline void free_list_add(struct zone *z, i64 pfn, i64 order, i64 mt, bool tail)
{
	struct free_area *area = &z->area[order];
	struct page *page = &z->map[pfn];

	if (tail)
		list_append(z->map, pfn, area->head[mt]);
	else
		list_push(z->map, pfn, area->head[mt]);
	page->order = order + 1;
	page->mt = mt;
	page->zone = z->number;
	page->owner = 0;
	area->nr_free++;
}

/* A run of largest blocks is one member; its first block counts those that follow. */
static inline void split_run(struct zone *z, i64 pfn, i64 order)
{
	struct page *page = &z->map[pfn];
	i64 rest = pfn + ((i64)1 << order);

	if (order != z->max_order || !page->owner)
		return;
	list_push(z->map, rest, pfn);
	z->map[rest].order = order + 1;
	z->map[rest].mt = page->mt;
	z->map[rest].zone = z->number;
	z->map[rest].owner = page->owner - 1;
	page->owner = 0;
}

static inline void free_list_del(struct zone *z, i64 pfn, i64 order)
{
	split_run(z, pfn, order);
	list_remove(z->map, pfn);
	z->map[pfn].order = 0;
	z->area[order].nr_free--;
}

static void free_list_move(struct zone *z, i64 pfn, i64 mt)
{
	i64 size = (i64)1 << (z->map[pfn].order - 1);

	z->nr_free_highatomic += (mt == HIGHATOMIC) * size;
	z->nr_free_highatomic -= (z->map[pfn].mt == HIGHATOMIC) * size;
	split_run(z, pfn, z->map[pfn].order - 1);
	list_remove(z->map, pfn);
	list_append(z->map, pfn, z->area[z->map[pfn].order - 1].head[mt]);
	z->map[pfn].mt = mt;
}

static inline bool block_bounds(const struct zone *z, i64 pfn, i64 *start, i64 *end)
{
	*start = pfn >> z->block_order << z->block_order;
	*end = *start + ((i64)1 << z->block_order);
	if (*start < z->start_pfn)
		*start = pfn;
	return *end <= z->end_pfn;
}

static i64 move_free_of_block(struct zone *z, i64 pfn, i64 mt)
{
	i64 start, end, moved = 0;

	if (!block_bounds(z, pfn, &start, &end))
		return 0;
	while (start < end) {
		const struct page *page = &z->map[start];

		if (!page->order || page->order >= ON_PCP || page->zone != z->number) {
			start++;
			continue;
		}
		i64 size = (i64)1 << (page->order - 1);
		free_list_move(z, start, mt);
		moved += size;
		start += size;
	}
	return moved;
}

static i64 movable_of_block(const struct zone *z, i64 pfn)
{
	i64 start, end, found = 0;

	if (!block_bounds(z, pfn, &start, &end))
		return 0;
	for (i64 i = start; i < end; i++)
		found += (z->map[i].flags & (USED | MOVABLE)) == (USED | MOVABLE);
	return found;
}

/* The buddy system */

static inline bool through_pcp(const struct zone *z, i64 order)
{
	return order <= COSTLY_ORDER || (z->thp && order == z->block_order);
}

static inline bool is_buddy(const struct zone *z, i64 pfn, i64 order)
{
	return z->map[pfn].order == order + 1 && z->map[pfn].zone == z->number;
}

static i64 take_smallest(struct zone *z, i64 order, i64 mt)
{
	for (i64 current = order; current <= z->max_order; current++) {
		i64 head = z->area[current].head[mt];
		i64 pfn = z->map[head].next;

		if (pfn == head)
			continue;
		free_list_del(z, pfn, current);
		while (current > order) {
			current--;
			free_list_add(z, pfn + ((i64)1 << current), current, mt, false);
		}
		z->map[pfn].mt = mt;
		emit(z, EV_LOCKED, pfn, order, mt, through_pcp(z, order) && mt < PCPTYPES);
		return pfn;
	}
	return NONE;
}

static void give_back(struct zone *z, i64 pfn, i64 order, i64 mt)
{
	if (mt != z->isolate_type) {
		z->nr_free += (i64)1 << order;
		if (mt == z->cma_type)
			z->nr_free_cma += (i64)1 << order;
		if (mt == HIGHATOMIC)
			z->nr_free_highatomic += (i64)1 << order;
	}
	for (; order < z->max_order; order++) {
		i64 buddy = pfn ^ (i64)1 << order;

		if (!is_buddy(z, buddy, order))
			break;
		if (order >= z->block_order) {
			i64 other = block_type(z, buddy);
			if (mt != other && (mt >= PCPTYPES || other >= PCPTYPES))
				break;
		}
		free_list_del(z, buddy, order);
		pfn &= buddy;
	}
	bool tail = false;
	if (order < z->max_order - 1) {
		i64 pair = pfn & ~((i64)1 << order);
		tail = is_buddy(z, pair ^ (i64)2 << order, order + 1);
	}
	free_list_add(z, pfn, order, mt, tail);
}

/* Highatomic reserve, fallback */

static void reserve_highatomic(struct zone *z, i64 pfn)
{
	i64 block = (i64)1 << z->block_order;

	if (z->nr_highatomic >= z->managed / 100 + block || block_type(z, pfn) >= PCPTYPES)
		return;
	z->nr_highatomic += block;
	set_block_type(z, pfn, HIGHATOMIC);
	move_free_of_block(z, pfn, HIGHATOMIC);
}

static const u8 donors[PCPTYPES][2] = {[U] = {R, M}, [M] = {R, U}, [R] = {U, M}};

static i64 find_donor(const struct zone *z, i64 order, i64 mt)
{
	const struct free_area *area = &z->area[order];

	if (!area->nr_free)
		return NONE;
	for (int i = 0; i < 2; i++)
		if (!list_is_empty(z->map, area->head[donors[mt][i]]))
			return donors[mt][i];
	return NONE;
}

static inline bool may_claim(const struct zone *z, i64 order, i64 mt)
{
	return order >= z->block_order / 2 || mt == R || mt == U || z->grouping_disabled;
}

static bool boost(struct zone *z)
{
	i64 block = (i64)1 << z->block_order, high = z->watermark[WMARK_HIGH];

	if (!z->boost_factor || block * 4 > z->managed)
		return false;
	i64 most = high / 10000 * z->boost_factor + high % 10000 * z->boost_factor / 10000;
	if (!most)
		return false;
	z->boost = min(z->boost + block, max(most, block));
	return true;
}

static void steal(struct zone *z, i64 pfn, i64 alloc_flags, i64 mt, bool whole)
{
	i64 order = z->map[pfn].order - 1, block = (i64)1 << z->block_order;
	i64 old = block_type(z, pfn);

	if (old == HIGHATOMIC) {
		free_list_move(z, pfn, mt);
		return;
	}
	if (order >= z->block_order) {
		for (i64 i = 0; i < (i64)1 << order; i += block)
			set_block_type(z, pfn + i, mt);
		free_list_move(z, pfn, mt);
		return;
	}
	if (boost(z) && alloc_flags & A_KSWAPD)
		z->flags |= ZONE_BOOSTED;
	if (!whole) {
		free_list_move(z, pfn, mt);
		return;
	}
	i64 movable = movable_of_block(z, pfn);
	i64 moved = move_free_of_block(z, pfn, mt);
	i64 alike = mt == M ? movable : old == M ? block - (moved + movable) : 0;
	if (!moved)
		free_list_move(z, pfn, mt);
	else if (moved + alike >= block / 2 || z->grouping_disabled)
		set_block_type(z, pfn, mt);
}

static bool fallback_at(struct zone *z, i64 order, i64 mt, i64 current, i64 donor, i64 alloc_flags)
{
	i64 pfn = z->map[z->area[current].head[donor]].next;

	steal(z, pfn, alloc_flags, mt, may_claim(z, current, mt));
	bool own = block_type(z, pfn) == mt;
	z->nr_steals++;
	z->nr_claims += own;
	emit(z, EV_EXTFRAG, pfn, order, mt, current | donor << 4 | (i64)own << 7);
	return true;
}

static bool fallback(struct zone *z, i64 order, i64 mt, i64 alloc_flags)
{
	i64 least = order, current, donor;

	if (alloc_flags & A_NOFRAGMENT && least < z->block_order)
		least = z->block_order;
	for (current = z->max_order; current >= least; current--) {
		donor = find_donor(z, current, mt);
		if (donor == NONE)
			continue;
		if (mt == M && current > order && !may_claim(z, current, mt))
			break;
		return fallback_at(z, order, mt, current, donor, alloc_flags);
	}
	if (current < least)
		return false;
	for (current = order; current <= z->max_order; current++) {
		donor = find_donor(z, current, mt);
		if (donor != NONE)
			return fallback_at(z, order, mt, current, donor, alloc_flags);
	}
	return false;
}

static i64 take(struct zone *z, i64 order, i64 mt, i64 alloc_flags)
{
	bool cma = z->cma_type != NONE && alloc_flags & A_CMA;
	i64 pfn;

	if (cma && z->nr_free_cma > z->nr_free / 2) {
		pfn = take_smallest(z, order, z->cma_type);
		if (pfn != NONE)
			return pfn;
	}
	do {
		pfn = take_smallest(z, order, mt);
		if (pfn == NONE && cma)
			pfn = take_smallest(z, order, z->cma_type);
	} while (pfn == NONE && fallback(z, order, mt, alloc_flags));
	return pfn;
}

/* Per-CPU lists */

static inline i64 pcp_list(i64 mt, i64 order)
{
	return order > COSTLY_ORDER ? NR_LOW_LISTS + (mt == M) : PCPTYPES * order + mt;
}

static i64 refill(struct zone *z, i64 head, i64 order, i64 count, i64 mt, i64 alloc_flags)
{
	i64 got;

	for (got = 0; got < count; got++) {
		i64 pfn = take(z, order, mt, alloc_flags);
		if (pfn == NONE)
			break;
		if (z->map[pfn].mt == z->cma_type)
			z->nr_free_cma -= (i64)1 << order;
		list_append(z->map, pfn, head);
		z->map[pfn].order = ON_PCP | order;
	}
	z->nr_free -= got << order;
	return got;
}

static i64 pcp_take(struct zone *z, struct pcp *pcp, i64 order, i64 mt, i64 alloc_flags)
{
	i64 head = pcp->head[pcp_list(mt, order)];

	if (list_is_empty(z->map, head)) {
		i64 batch = pcp->batch > 1 ? max(pcp->batch >> order, 2) : pcp->batch;
		pcp->count += refill(z, head, order, batch, mt, alloc_flags) << order;
		if (list_is_empty(z->map, head))
			return NONE;
	}
	i64 pfn = z->map[head].next;
	list_remove(z->map, pfn);
	pcp->count -= (i64)1 << order;
	return pfn;
}

static void pcp_drain(struct zone *z, struct pcp *pcp, i64 count, i64 list)
{
	count = min(count, pcp->count);
	for (; count > 0; list = list + 1 == NR_LISTS ? 0 : list + 1) {
		i64 head = pcp->head[list];
		i64 order = list < NR_LOW_LISTS ? list / PCPTYPES : z->block_order;

		while (count > 0 && !list_is_empty(z->map, head)) {
			i64 pfn = z->map[head].prev;
			i64 mt = z->nr_isolate > 0 ? block_type(z, pfn) : z->map[pfn].mt;

			list_remove(z->map, pfn);
			count -= (i64)1 << order;
			pcp->count -= (i64)1 << order;
			z->map[pfn].order = 0;
			give_back(z, pfn, order, mt);
			emit(z, EV_DRAIN, pfn, order, mt, 0);
		}
	}
}

static void pcp_give(struct zone *z, struct pcp *pcp, i64 pfn, i64 order, i64 mt)
{
	i64 list = pcp_list(mt, order), high = pcp->high, count;
	bool all = pcp->free_factor > 0 && order > 0 && order <= COSTLY_ORDER;

	list_push(z->map, pfn, pcp->head[list]);
	z->map[pfn].order = ON_PCP | order;
	pcp->count += (i64)1 << order;
	if (all)
		high = 0;
	else if (high && z->flags & ZONE_RECLAIM)
		high = min(pcp->batch << 2, high);
	if (pcp->count < high)
		return;
	if (all) {
		count = pcp->count;
	} else if (high < pcp->batch) {
		count = 1;
	} else {
		i64 most = high - pcp->batch;

		count = pcp->batch << pcp->free_factor;
		if (count < most && pcp->free_factor < 5)
			pcp->free_factor++;
		count = min(max(count, pcp->batch), most);
	}
	pcp_drain(z, pcp, count, list);
}

/* Watermarks */

static inline i64 unusable(const struct zone *z, i64 order, i64 alloc_flags)
{
	i64 frames = ((i64)1 << order) - 1;

	if (!(alloc_flags & A_RESERVES))
		frames += z->nr_highatomic;
	if (z->cma_type != NONE && !(alloc_flags & A_CMA))
		frames += z->nr_free_cma;
	return frames;
}

static bool watermark_ok(const struct zone *z, i64 order, i64 mark, i64 highest, i64 alloc_flags)
{
	i64 free = z->nr_free - unusable(z, order, alloc_flags);

	if (alloc_flags & A_MIN_RESERVE) {
		mark -= mark / 2;
		if (alloc_flags & A_NON_BLOCK)
			mark -= mark / 4;
	}
	if (alloc_flags & A_OOM)
		mark -= mark / 2;
	if (free <= mark + z->lowmem_reserve[highest])
		return false;
	if (!order)
		return true;
	for (; order <= z->max_order; order++) {
		const struct free_area *area = &z->area[order];

		if (!area->nr_free)
			continue;
		for (int mt = 0; mt < PCPTYPES; mt++)
			if (!list_is_empty(z->map, area->head[mt]))
				return true;
		if (z->cma_type != NONE && alloc_flags & A_CMA &&
		    !list_is_empty(z->map, area->head[z->cma_type]))
			return true;
		if (alloc_flags & (A_HIGHATOMIC | A_OOM) &&
		    !list_is_empty(z->map, area->head[HIGHATOMIC]))
			return true;
	}
	return false;
}

static bool watermark_fast(const struct zone *z, i64 order, i64 mark, i64 highest, i64 alloc_flags,
			   i64 gfp)
{
	if (!order) {
		i64 free = z->nr_free - min(z->nr_free, unusable(z, 0, alloc_flags));
		if (free > mark + z->lowmem_reserve[highest])
			return true;
	}
	if (watermark_ok(z, order, mark, highest, alloc_flags))
		return true;
	return !order && gfp & GFP_ATOMIC && z->boost && (alloc_flags & A_WMARK) == A_MIN &&
	       watermark_ok(z, 0, z->watermark[WMARK_MIN], highest, alloc_flags);
}

/* Allocation */

static inline i64 highest_zone(const struct memory *m, i64 gfp)
{
	if (gfp & GFP_DMA && m->dma != NONE)
		return m->dma;
	if (gfp & GFP_DMA32 && m->dma32 != NONE)
		return m->dma32;
	if (gfp & GFP_HIGHMEM)
		return gfp & GFP_MOVABLE ? m->movable : m->highmem;
	return m->normal;
}

static inline i64 type_of(const struct zone *z, i64 gfp)
{
	if (z->grouping_disabled)
		return U;
	return gfp & GFP_MOVABLE ? M : gfp & GFP_RECLAIMABLE ? R : U;
}

static inline void prepare_new(struct zone *z, i64 pfn, i64 order, i64 gfp)
{
	u8 flags = gfp & GFP_MOVABLE ? USED | MOVABLE : USED;

	z->map[pfn].order = HEAD_USED | order;
	for (i64 i = pfn; i < pfn + ((i64)1 << order); i++)
		z->map[i].flags = flags;
}

static i64 take_from_lists(struct zone *z, i64 order, i64 mt, i64 alloc_flags)
{
	i64 pfn = NONE;

	if (alloc_flags & A_HIGHATOMIC)
		pfn = take_smallest(z, order, HIGHATOMIC);
	if (pfn == NONE)
		pfn = take(z, order, mt, alloc_flags);
	if (pfn == NONE && alloc_flags & (A_OOM | A_NON_BLOCK))
		pfn = take_smallest(z, order, HIGHATOMIC);
	if (pfn != NONE) {
		z->nr_free -= (i64)1 << order;
		if (z->map[pfn].mt == z->cma_type)
			z->nr_free_cma -= (i64)1 << order;
		if (z->map[pfn].mt == HIGHATOMIC)
			z->nr_free_highatomic -= (i64)1 << order;
	}
	return pfn;
}

static inline i64 take_from_zone(struct zone *z, i64 order, i64 mt, i64 alloc_flags, i64 cpu)
{
	i64 pfn = NONE;

	if (through_pcp(z, order) && !(alloc_flags & A_BUSY) &&
	    (z->cma_type == NONE || mt != M || alloc_flags & A_CMA)) {
		struct pcp *pcp = &z->pageset[cpu];

		pcp->free_factor >>= 1;
		pfn = pcp_take(z, pcp, order, mt, alloc_flags);
	}
	if (pfn == NONE)
		pfn = take_from_lists(z, order, mt, alloc_flags);
	z->flags &= ~(i64)ZONE_BOOSTED;
	return pfn;
}

static struct zoneref *preferred_zone(struct memory *m, i64 nid, i64 highest)
{
	struct zoneref *ref = m->zonelist + nid * m->nr_zones;

	for (i64 i = 0; i < m->nr_zones; i++)
		if (ref[i].zone != NONE && ref[i].zone_idx <= highest)
			return &ref[i];
	return NULL;
}

static i64 walk_zonelist(struct memory *m, i64 order, i64 gfp, i64 alloc_flags,
			 struct zoneref *first, i64 nid, i64 cpu)
{
	struct zoneref *end = m->zonelist + (nid + 1) * m->nr_zones;
	i64 highest = highest_zone(m, gfp), local = m->zones[first->zone].node;

	for (;;) {
		for (struct zoneref *ref = first; ref < end && ref->zone != NONE; ref++) {
			struct zone *z = &m->zones[ref->zone];

			if (ref->zone_idx > highest)
				continue;
			if (gfp & GFP_THISNODE && z->node != nid)
				continue;
			if (alloc_flags & A_NOFRAGMENT && m->nr_nodes > 1 && z->node != local)
				break;
			i64 mark = z->watermark[alloc_flags & A_WMARK] + z->boost;
			if (!(alloc_flags & A_NO_WMARK) &&
			    !watermark_fast(z, order, mark, highest, alloc_flags, gfp))
				continue;
			i64 pfn = take_from_zone(z, order, type_of(z, gfp), alloc_flags, cpu);
			if (pfn == NONE)
				continue;
			prepare_new(z, pfn, order, gfp);
			if (order && alloc_flags & A_HIGHATOMIC)
				reserve_highatomic(z, pfn);
			return pfn;
		}
		if (!(alloc_flags & A_NOFRAGMENT))
			return NONE;
		alloc_flags &= ~(i64)A_NOFRAGMENT;
	}
}

static i64 flags_of_first_attempt(const struct memory *m, const struct zoneref *first, i64 gfp)
{
	i64 flags = A_LOW | (gfp & GFP_KSWAPD) | (gfp & GFP_MOVABLE ? A_CMA : 0);

	if (m->dma32 == NONE || first->zone_idx != m->normal)
		return flags;
	if (m->nr_nodes > 1) {
		const struct zone *z = &m->zones[first->zone];
		if (!first->zone || z[-1].node != z->node || z[-1].zone_idx != m->normal - 1)
			return flags;
	}
	return flags | A_NOFRAGMENT;
}

static i64 flags_of_second_attempt(i64 gfp, i64 order)
{
	i64 flags = A_MIN | (gfp & GFP_KSWAPD) | (gfp & GFP_MOVABLE ? A_CMA : 0);

	if (gfp & GFP_HIGH)
		flags |= A_MIN_RESERVE;
	if (!(gfp & (GFP_DIRECT | GFP_NOMEMALLOC))) {
		flags |= A_NON_BLOCK;
		if (order && gfp & GFP_HIGH)
			flags |= A_HIGHATOMIC;
	}
	return flags;
}

static inline bool may_wait(i64 gfp, i64 order)
{
	return gfp & GFP_DIRECT && !(gfp & GFP_NORETRY) &&
	       (order <= COSTLY_ORDER || gfp & GFP_RETRY_MAYFAIL);
}

static bool unreserve_highatomic(struct memory *m, struct zoneref *first, i64 gfp, i64 nid)
{
	struct zoneref *end = m->zonelist + (nid + 1) * m->nr_zones;
	i64 highest = highest_zone(m, gfp), mt = type_of(&m->zones[first->zone], gfp);

	for (struct zoneref *ref = first; ref < end && ref->zone != NONE; ref++) {
		struct zone *z = &m->zones[ref->zone];

		if (ref->zone_idx > highest || (gfp & GFP_THISNODE && z->node != nid))
			continue;
		for (i64 order = 0; order <= z->max_order; order++) {
			i64 head = z->area[order].head[HIGHATOMIC], pfn = z->map[head].next;

			if (pfn == head)
				continue;
			if (block_type(z, pfn) == HIGHATOMIC)
				z->nr_highatomic -= min((i64)1 << z->block_order, z->nr_highatomic);
			set_block_type(z, pfn, mt);
			if (move_free_of_block(z, pfn, mt))
				return true;
		}
	}
	return false;
}

static i64 allocate(struct memory *m, i64 order, i64 gfp, i64 nid, i64 cpu, i64 busy)
{
	struct zoneref *first = preferred_zone(m, nid, highest_zone(m, gfp));
	i64 flags, pfn;

	if (order > m->zones[0].max_order || !first) {
		m->nr_failed++;
		return NONE;
	}
	flags = flags_of_first_attempt(m, first, gfp) | busy;
	pfn = walk_zonelist(m, order, gfp, flags, first, nid, cpu);
	if (pfn != NONE)
		return pfn;
	m->nr_slowpath++;
	flags = flags_of_second_attempt(gfp, order) | busy;
	bool rights = gfp & GFP_MEMALLOC && !(gfp & GFP_NOMEMALLOC), last = !may_wait(gfp, order);
	for (;;) {
		pfn = walk_zonelist(m, order, gfp, flags, first, nid, cpu);
		if (pfn != NONE)
			return pfn;
		if (rights) {
			rights = false;
			flags = A_NO_WMARK | (flags & (A_KSWAPD | A_CMA)) | busy;
		} else if (last) {
			m->nr_failed++;
			return NONE;
		} else if (!unreserve_highatomic(m, first, gfp, nid)) {
			last = true;
			flags = A_HIGH | busy;
		}
	}
}

static struct zone *zone_for_bulk(struct memory *m, i64 nr_pages, i64 gfp, i64 nid)
{
	i64 highest = highest_zone(m, gfp), flags = A_LOW | (gfp & GFP_MOVABLE ? A_CMA : 0);
	struct zoneref *first = preferred_zone(m, nid, highest);
	struct zoneref *end = m->zonelist + (nid + 1) * m->nr_zones;

	if (!first || (gfp & GFP_THISNODE && m->zones[first->zone].node != nid))
		return NULL;
	for (struct zoneref *ref = first; ref < end && ref->zone != NONE; ref++) {
		struct zone *z = &m->zones[ref->zone];

		if (ref->zone_idx > highest)
			continue;
		if (z->node != m->zones[first->zone].node)
			break;
		i64 mark = z->watermark[WMARK_LOW] + z->boost + nr_pages;
		if (watermark_fast(z, 0, mark, first->zone_idx, flags, gfp))
			return z;
	}
	return NULL;
}

/* Replay */

static struct zone *zone_of(struct memory *m, i64 pfn)
{
	if (pfn < 0 || pfn >= m->max_pfn)
		return NULL;
	struct zone *end = m->zones + m->nr_zones;
	for (struct zone *z = m->zones + m->block_zone[pfn >> m->block_order]; z < end; z++)
		if (z->start_pfn <= pfn && pfn < z->end_pfn)
			return z;
	return NULL;
}

static i64 replay_alloc(struct memory *m, Run *r, struct request *q, i64 recorded)
{
	i64 node = q->node;

	if (m->nr_nodes > 1 && !r->strict) {
		struct zone *z = zone_of(m, recorded);
		if (z && z->node != node) {
			node = z->node;
			r->node_requests++;
			q->race |= RACE_NODE;
		}
	}
	return allocate(m, q->order, q->gfp, node, q->cpu, q->race & RACE_BUSY ? A_BUSY : 0);
}

static void replay_free(struct memory *m, Run *r, struct request *q)
{
	i64 pfn = q->pfn, size = (i64)1 << q->order;

	if (!r->strict) {
		if (pfn >= r->twin_len || r->twin[pfn] == NO_TWIN) {
			r->frees_unmatched++;
			return;
		}
		pfn = r->twin[pfn];
	}
	struct zone *z = zone_of(m, pfn);
	if (!z) {
		r->frees_unmatched++;
		return;
	}
	struct page *page = &z->map[pfn];
	if (q->kind == COMMIT) {
		if (page->flags != PREPARED)
			return;
	} else {
		bool used = !(pfn & (size - 1)) && pfn + size <= z->end_pfn;

		r->frees++;
		for (i64 i = 0; used && i < size; i++)
			used = page[i].flags & USED;
		if (!used) {
			r->frees_unmatched++;
			return;
		}
		for (i64 i = 0; i < size; i++)
			page[i].flags = page[i].order = 0;
		page->mt = block_type(z, pfn);
		page->flags = PREPARED;
		if (q->kind == PREPARE)
			return;
	}
	page->flags = 0;
	if (q->race & RACE_BUSY || page->mt == z->isolate_type || !through_pcp(z, q->order))
		give_back(z, pfn, q->order, page->mt);
	else
		pcp_give(z, &z->pageset[q->cpu], pfn, q->order, page->mt < PCPTYPES ? page->mt : M);
	if (!r->strict) {
		i64 end = min((i64)q->pfn + size, r->twin_len);
		for (i64 i = q->pfn; i < end; i++)
			r->twin[i] = i;
	}
}

static void replay_bulk(struct memory *m, Run *r, const struct request *q)
{
	struct zone *z = zone_for_bulk(m, q->pfn, q->gfp, q->node);
	i64 flags = A_LOW | (q->gfp & GFP_MOVABLE ? A_CMA : 0);

	for (u32 i = 0; i < q->pfn; i++) {
		i64 pfn = NONE;
		if (z)
			pfn = pcp_take(z, &z->pageset[q->cpu], 0, type_of(z, q->gfp), flags);
		if (pfn == NONE) {
			r->bulk_failed++;
		} else {
			prepare_new(z, pfn, 0, q->gfp);
			r->bulk_pages++;
		}
	}
}

static void replay_drain(struct memory *m, const struct request *q)
{
	if (q->pfn >= m->nr_zones || q->cpu >= m->nr_cpus)
		return;
	struct zone *z = &m->zones[q->pfn];
	struct pcp *pcp = &z->pageset[q->cpu];
	if (q->kind == DRAIN_BATCH)
		pcp_drain(z, pcp, pcp->batch, 0);
	else
		while (pcp->count > 0)
			pcp_drain(z, pcp, pcp->batch << 5, 0);
}

static inline void add_to_digest(Run *r, i64 value)
{
	const i64 mask = ((i64)1 << 48) - 1;

	r->digest = (r->digest * 31 + ((value ^ value >> 24) & mask)) & mask;
}

static bool compare_consequences(struct memory *m, Run *r, const struct request *q)
{
	const i64 *recorded = r->expected + q->first, *ours = m->trace + 1;
	i64 count = q->nr_expected, emitted = m->trace[0], same = 0;

	if (emitted >= m->trace_len) {
		r->trace_overflow++;
		emitted = m->trace_len - 1;
	}
	for (i64 i = 0; i < emitted; i++)
		add_to_digest(r, ours[i]);
	for (i64 i = 0; i < min(count, emitted); i++)
		same += ours[i] == recorded[i];
	r->consequences_exact += same;
	r->consequences_extra += max(emitted - count, 0);
	return same == count && emitted == count;
}

static bool compare_allocation(struct memory *m, Run *r, i64 at, i64 pfn)
{
	i64 recorded = r->outcome[at], size = (i64)1 << r->requests[at].order;
	bool exact = pfn == recorded;
	struct zone *z = zone_of(m, recorded != NONE ? recorded : pfn);

	r->predicted[at] = pfn;
	add_to_digest(r, pfn);
	r->allocations++;
	r->exact += exact;
	if (z) {
		r->zone_requests[z->number]++;
		r->zone_exact[z->number] += exact;
	}
	if (recorded != NONE && !r->strict)
		for (i64 i = 0; i < min(size, r->twin_len - recorded); i++)
			r->twin[recorded + i] = pfn == NONE ? NO_TWIN : (u32)(pfn + i);
	return exact;
}

/* Carry requests out up to `end`; the first that diverged, or `end`. */
long replay(Run *run, long end)
{
	struct memory *m = run->memory;

	for (i64 at = run->next_request; at < end; at++) {
		struct request *q = &run->requests[at];
		bool exact = true;

		m->trace[0] = 0;
		switch (q->kind) {
		case ALLOC:
			exact = compare_allocation(m, run, at,
						   replay_alloc(m, run, q, run->outcome[at]));
			break;
		case FREE:
		case PREPARE:
		case COMMIT:
			replay_free(m, run, q);
			break;
		case BULK:
			replay_bulk(m, run, q);
			break;
		case DRAIN_ALL:
		case DRAIN_BATCH:
			replay_drain(m, q);
			break;
		}
		exact &= compare_consequences(m, run, q);
		if (!exact) {
			run->diverged++;
			if (run->stop_at_divergence) {
				run->next_request = at + 1;
				return at;
			}
		}
	}
	run->next_request = end;
	return end;
}

/* Sizes of the structs, for the caller to compare with its own. */
const i64 struct_sizes[] = {
	sizeof(struct page), sizeof(struct free_area), sizeof(struct pcp), sizeof(struct zone),
	sizeof(struct zoneref), sizeof(struct memory), sizeof(struct request), sizeof(Run),
};
