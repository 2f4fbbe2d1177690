/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The same work as bench/objects.py in plain C: a SLUB with CPU slab, chain and node list, links in
 * the objects, pages from a stack. Prints ns per pair and ns per random operation. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#define PAGES (1u << 18)
#define NONE 0xffffffffu

struct slab { uint64_t freelist; uint32_t next, prev; uint16_t inuse, objects, slabs; uint8_t cache, frozen; uint32_t head; };
struct cache { uint64_t freelist; uint32_t slab, chain, partial_head, partial_tail; uint32_t nr_partial, size, objects, order, limit, min_partial; uint64_t hits; };

static uint8_t *ram;
static struct slab *slabs;
static struct cache caches[14];
static uint8_t index_of[1024];
static uint32_t stack[4][PAGES], depth[4], fresh = 16;

static inline uint64_t *link_of(struct cache *c, uint64_t at) { return (uint64_t *)(ram + at + (c->size / 2 & ~7u)); }

static uint32_t new_slab(struct cache *c)
{
    uint32_t pfn, n = 1u << c->order;
    if (depth[c->order]) pfn = stack[c->order][--depth[c->order]];
    else { fresh = (fresh + n - 1) & ~(n - 1); pfn = fresh; fresh += n; if (fresh > PAGES) abort(); }
    uint64_t at = (uint64_t)pfn << 12, last = at + (uint64_t)(c->objects - 1) * c->size;
    for (uint64_t p = at; p < last; p += c->size) *link_of(c, p) = p + c->size;
    *link_of(c, last) = 0;
    for (uint32_t i = 0; i < n; i++) slabs[pfn + i].head = pfn;
    struct slab *s = &slabs[pfn];
    s->freelist = at; s->inuse = 0; s->objects = c->objects; s->cache = c - caches; s->frozen = 0;
    return pfn;
}

static void list_add_tail(struct cache *c, uint32_t pfn)
{
    struct slab *s = &slabs[pfn];
    s->next = NONE; s->prev = c->partial_tail; s->frozen = 0;
    if (c->partial_tail == NONE) c->partial_head = pfn; else slabs[c->partial_tail].next = pfn;
    c->partial_tail = pfn; c->nr_partial++;
}

static void list_del(struct cache *c, uint32_t pfn)
{
    struct slab *s = &slabs[pfn];
    if (s->prev == NONE) c->partial_head = s->next; else slabs[s->prev].next = s->next;
    if (s->next == NONE) c->partial_tail = s->prev; else slabs[s->next].prev = s->prev;
    c->nr_partial--;
}

static void put_chain(struct cache *c, uint32_t pfn, int drain)
{
    uint32_t old = c->chain, count = 0;
    if (old != NONE) {
        count = slabs[old].slabs;
        if (drain && count >= c->limit) {
            while (old != NONE) {
                uint32_t next = slabs[old].next;
                if (!slabs[old].inuse && c->nr_partial >= c->min_partial) stack[c->order][depth[c->order]++] = old;
                else list_add_tail(c, old);
                old = next;
            }
            count = 0;
        }
    }
    slabs[pfn].slabs = count + 1; slabs[pfn].next = old; slabs[pfn].frozen = 1; c->chain = pfn;
}

static uint64_t take(uint32_t pfn)
{
    uint64_t f = slabs[pfn].freelist;
    slabs[pfn].freelist = 0; slabs[pfn].inuse = slabs[pfn].objects; slabs[pfn].frozen = f != 0;
    return f;
}

static __attribute__((noinline)) uint64_t alloc_slow(struct cache *c)
{
    uint64_t f = 0;
    if (c->slab != NONE) f = take(c->slab);
    if (!f) {
        if (c->chain != NONE) { c->slab = c->chain; c->chain = slabs[c->slab].next; }
        else if (c->partial_head != NONE) {
            uint32_t taken = 0;
            c->slab = c->partial_head; list_del(c, c->slab);
            while (c->partial_head != NONE) { uint32_t p = c->partial_head; list_del(c, p); put_chain(c, p, 0); if (++taken > c->limit / 2) break; }
        } else c->slab = new_slab(c);
        f = take(c->slab);
    }
    c->freelist = *link_of(c, f);
    return f;
}

static inline uint64_t kmalloc(uint32_t size)
{
    struct cache *c = &caches[index_of[(size - 1) >> 3]];
    uint64_t f = c->freelist;
    if (!f) return alloc_slow(c);
    c->freelist = *link_of(c, f); c->hits++;
    return f;
}

static inline void kfree(uint64_t at)
{
    uint32_t pfn = slabs[at >> 12].head;
    struct slab *s = &slabs[pfn];
    struct cache *c = &caches[s->cache];
    if (c->slab == pfn) { *link_of(c, at) = c->freelist; c->freelist = at; c->hits++; return; }
    uint64_t prior = s->freelist;
    *link_of(c, at) = prior; s->freelist = at; s->inuse--;
    if (s->frozen) return;
    if (!prior) put_chain(c, pfn, 1);
    else if (!s->inuse && c->nr_partial >= c->min_partial) { list_del(c, pfn); stack[c->order][depth[c->order]++] = pfn; }
}

static double now(void) { struct timespec t; clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); return t.tv_sec + t.tv_nsec * 1e-9; }

int main(int argc, char **argv)
{
    long count = argc > 1 ? atol(argv[1]) : 10000000;
    int repeat = argc > 2 ? atoi(argv[2]) : 3;
    static const uint8_t order[14] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 3};
    ram = mmap(0, (size_t)PAGES << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    slabs = calloc(PAGES, sizeof *slabs);
    for (int i = 3; i < 14; i++) {
        struct cache *c = &caches[i];
        c->size = 1u << i; c->order = order[i]; c->objects = (4096u << c->order) / c->size;
        uint32_t nr = c->size >= 4096 ? 6 : c->size >= 1024 ? 24 : c->size >= 256 ? 52 : 120;
        c->limit = (2 * nr + c->objects - 1) / c->objects; c->min_partial = 5;
        c->slab = c->chain = c->partial_head = c->partial_tail = NONE;
    }
    for (int i = 0; i < 1024; i++) { int k = 3; while ((1 << k) < (i + 1) * 8) k++; index_of[i] = k; }
    double pair = 1e9, work = 1e9;
    static uint64_t slots[1 << 14];
    for (int r = 0; r < repeat; r++) {
        double t = now();
        for (long i = 0; i < count; i++) { uint64_t p = kmalloc(64); __asm__ volatile("" : "+r"(p)); kfree(p); }
        t = now() - t; if (t < pair) pair = t;
        uint64_t seed = 1; t = now();
        for (long i = 0; i < count; i++) {
            seed = (seed * 25214903917u + 11) & 0xffffffffffffu;
            uint32_t slot = seed >> 16 & 0x3fff;
            if (slots[slot]) { kfree(slots[slot]); slots[slot] = 0; }
            else slots[slot] = kmalloc(8u << (seed >> 40 & 7));
        }
        t = now() - t; if (t < work) work = t;
    }
    printf("%.3f %.3f\n", pair / count * 1e9, work / count * 1e9);
    return 0;
}
