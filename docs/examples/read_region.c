/* Reads one slice's file and prints what it holds: docs/region.md explains each step.
 *
 *     cc -I<source or include folder of allot> read_region.c -o read_region
 *     ./read_region /run/allot/alice.slice
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "abi/region.h"

static AllotSliceFile file; /* zeros where a shorter file of an older minor version ends */

static int read_file(const char* path) {
  const int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return -1;
  size_t have = 0; /* read, never mmap: its owner may truncate it, and that would be SIGBUS */
  ssize_t n;
  while (have < sizeof file && (n = pread(fd, (char*)&file + have, sizeof file - have, have)) > 0)
    have += (size_t)n;
  close(fd);
  const AllotHeader* h = &file.header;
  if (have < sizeof *h || h->magic != ALLOT_REGION_MAGIC || h->major != ALLOT_REGION_MAJOR)
    return -1;
  return h->gpu_bytes == sizeof(AllotGpu) && h->slot_bytes == sizeof(AllotSlot) ? 0 : -1;
}

static unsigned at_most(unsigned value, unsigned most) {
  return value < most ? value : most;
}

int main(int argc, char** argv) {
  if (argc != 2 || read_file(argv[1]) != 0) {
    fprintf(stderr, "usage: read_region FILE.slice (of region version %u)\n", ALLOT_REGION_MAJOR);
    return 1;
  }
  printf("%.*s\n", (int)sizeof file.header.name,
         file.header.name); /* bytes of its owner's choice */
  const unsigned gpus = at_most(file.header.gpu_count, ALLOT_MAX_GPUS);
  for (unsigned g = 0; g < gpus; ++g) {
    const AllotGpu* gpu = &file.gpus[g];
    printf("  GPU entry %u: %llu bytes used, limit %llu, share %u permille\n", g,
           (unsigned long long)gpu->account.used_bytes, (unsigned long long)gpu->limit_bytes,
           gpu->share_permille);
  }
  const unsigned high = at_most(file.header.slots_high, ALLOT_MAX_SLOTS);
  for (unsigned i = 0; i < high; ++i) {
    const uint64_t word = file.slot_words[i];
    if (ALLOT_SLOT_STATE(word) != ALLOT_SLOT_LIVE) continue; /* only LIVE slots count */
    printf("  process %u\n", ALLOT_SLOT_PID(word));          /* may be dead: see docs/region.md */
    for (unsigned g = 0; g < gpus; ++g)
      for (unsigned kind = 0; kind < ALLOT_KINDS; ++kind)
        if (file.slots[i].charges[g][kind] != 0)
          printf("    GPU entry %u, kind %u: %llu bytes\n", g, kind,
                 (unsigned long long)file.slots[i].charges[g][kind]);
  }
  return 0;
}
