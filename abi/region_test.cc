// Pins the layout of the node region: processes of different builds share these bytes.
//
// If a line here fails, the layout has changed. A field appended in reserved space: add its line
// and raise ALLOT_REGION_MINOR. Anything else: raise ALLOT_REGION_MAJOR, so that old files are
// refused.
#include "abi/region.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <fstream>
#include <map>
#include <string>
#include <type_traits>

#include "abi/env.h"

namespace {

static_assert(sizeof(AllotHeader) == 4096);
static_assert(sizeof(AllotAccount) == 16 && alignof(AllotAccount) == 16);
static_assert(sizeof(AllotGpu) == 256);
static_assert(sizeof(AllotSlot) == 1152);
static_assert(sizeof(AllotExport) == 16);
static_assert(sizeof(AllotGpuClient) == 64);
static_assert(sizeof(AllotSwap) == 256);
static_assert(sizeof(AllotSliceFile) == 5840896);
static_assert(std::is_standard_layout_v<AllotSliceFile> &&
              std::is_trivially_destructible_v<AllotSliceFile>);
static_assert(__atomic_always_lock_free(8, nullptr) && __atomic_always_lock_free(4, nullptr));

#define AT(type, field, offset) static_assert(offsetof(type, field) == (offset))
AT(AllotHeader, magic, 0);
AT(AllotHeader, major, 8);
AT(AllotHeader, minor, 12);
AT(AllotHeader, file_bytes, 16);
AT(AllotHeader, header_bytes, 24);
AT(AllotHeader, gpu_bytes, 28);
AT(AllotHeader, slot_bytes, 32);
AT(AllotHeader, slot_count, 36);
AT(AllotHeader, boot_id, 40);
AT(AllotHeader, name, 56);
AT(AllotHeader, uid, 120);
AT(AllotHeader, flags, 124);
AT(AllotHeader, launcher_pid, 128);
AT(AllotHeader, gpu_count, 132);
AT(AllotHeader, launcher_start, 136);
AT(AllotHeader, created_unix_ns, 144);
AT(AllotHeader, pid_namespace, 152);
AT(AllotHeader, config_sequence, 160);
AT(AllotHeader, slots_high, 168);
AT(AllotHeader, unknown_symbols, 172);
AT(AllotHeader, priority, 176);
AT(AllotHeader, level, 180);
AT(AllotHeader, ledger_faults, 184);
AT(AllotHeader, wake_seq, 188);
AT(AllotHeader, latency_us, 192);
AT(AllotHeader, held, 196);
AT(AllotHeader, members_fd, 200);
AT(AllotHeader, evictions, 204);
AT(AllotHeader, frozen_clock, 208);
AT(AllotHeader, restores, 216);
AT(AllotHeader, reserved, 220);
AT(AllotHeader, cgroup_claim, 4080);
AT(AllotHeader, reserved_too, 4088);
AT(AllotHeader, sealed_priority, 4092);

AT(AllotAccount, used_bytes, 0);
AT(AllotAccount, generation, 8);
AT(AllotAccount, sequence, 12);

AT(AllotGpu, uuid, 0);
AT(AllotGpu, account, 16);
AT(AllotGpu, limit_bytes, 32);
AT(AllotGpu, physical_bytes, 40);
AT(AllotGpu, context_bytes, 48);
AT(AllotGpu, peak_bytes, 56);
AT(AllotGpu, refused, 64);
AT(AllotGpu, share_permille, 72);
AT(AllotGpu, max_permille, 76);
AT(AllotGpu, recount_turn, 80);
AT(AllotGpu, index_plus_one, 84);
AT(AllotGpu, time_used_ns, 88);
AT(AllotGpu, time_throttled_ns, 96);
AT(AllotGpu, reserved, 104);
AT(AllotGpu, sealed_bytes, 240);
AT(AllotGpu, sealed_share_permille, 248);
AT(AllotGpu, sealed_max_permille, 252);

AT(AllotGpuClient, owner, 0);
AT(AllotGpuClient, heartbeat_ns, 8);
AT(AllotGpuClient, gpu, 16);
AT(AllotGpuClient, flags, 20);
AT(AllotGpuClient, used_ns, 24);
AT(AllotGpuClient, throttled_ns, 32);
AT(AllotGpuClient, level, 40);
AT(AllotGpuClient, reason, 44);
AT(AllotGpuClient, timeslice_us, 48);
AT(AllotGpuClient, busy_permille, 52);
AT(AllotGpuClient, footprint_permille, 54);
AT(AllotGpuClient, window_permille, 56);
AT(AllotGpuClient, slot, 60);

AT(AllotSlot, start_time, 0);
AT(AllotSlot, pid_namespace, 8);
AT(AllotSlot, joined_unix_ns, 16);
AT(AllotSlot, execing, 24);
AT(AllotSlot, level, 28);
AT(AllotSlot, command, 32);
AT(AllotSlot, evicted, 64);
AT(AllotSlot, wants, 68);
AT(AllotSlot, last_work_ns, 72);
AT(AllotSlot, unheld_gpus, 80);
AT(AllotSlot, gpus_beyond, 84);
AT(AllotSlot, held, 88);
AT(AllotSlot, full_tables, 92);
AT(AllotSlot, reserved, 96);
AT(AllotSlot, charges, 128);

AT(AllotExport, handle_hash, 0);
AT(AllotExport, slot, 8);
AT(AllotExport, slot_generation, 12);

AT(AllotCounters, counted, 0);
AT(AllotCounters, pid, 4);
AT(AllotCounters, start_time, 8);
AT(AllotCounters, time_used_ns, 16);
AT(AllotCounters, time_throttled_ns, 24);
AT(AllotCounters, frozen_ns, 32);
AT(AllotCounters, refused, 40);
AT(AllotCounters, evictions, 48);
AT(AllotCounters, restores, 52);
AT(AllotCounters, reserved, 56);
static_assert(sizeof(AllotCounters) == 64);

AT(AllotSwap, owner, 0);
AT(AllotSwap, order, 8);
AT(AllotSwap, answer, 12);
AT(AllotSwap, result, 16);
AT(AllotSwap, cuda_result, 20);
AT(AllotSwap, patience_ms, 24);
AT(AllotSwap, pins, 28);
AT(AllotSwap, moved_bytes, 32);
AT(AllotSwap, drain_ns, 40);
AT(AllotSwap, move_ns, 48);
AT(AllotSwap, counters, 56);
AT(AllotSwap, reserved, 120);
AT(AllotSwap, movable, 128);

AT(AllotSliceFile, header, 0);
AT(AllotSliceFile, gpus, 4096);
AT(AllotSliceFile, clients, 8192);
AT(AllotSliceFile, slot_words, 24576);
AT(AllotSliceFile, slots, 57344);
AT(AllotSliceFile, exports, 4775936);
AT(AllotSliceFile, swaps, 4792320);
#undef AT

TEST(RegionAbi, NumbersThatStandInFiles) {
  EXPECT_EQ(ALLOT_REGION_MAGIC, 0x31544f4c4c41ull);
  EXPECT_EQ(ALLOT_REGION_MAJOR, 1u);
  EXPECT_EQ(ALLOT_MAX_GPUS, 16u);
  EXPECT_EQ(ALLOT_MAX_SLOTS, 4096u);
  EXPECT_EQ(ALLOT_KIND_LINEAR, 0);
  EXPECT_EQ(ALLOT_KIND_ARRAY, 1);
  EXPECT_EQ(ALLOT_KIND_MANAGED, 2);
  EXPECT_EQ(ALLOT_KIND_POOL, 3);
  EXPECT_EQ(ALLOT_KIND_VMM, 4);
  EXPECT_EQ(ALLOT_KIND_GRAPH, 5);
  EXPECT_EQ(ALLOT_KIND_IMPORT, 6);
  EXPECT_EQ(ALLOT_KIND_DRIVER, 7);
  EXPECT_EQ(ALLOT_KINDS, 8);
  EXPECT_EQ(ALLOT_SLOT_FREE, 0);
  EXPECT_EQ(ALLOT_SLOT_TAKING, 1);
  EXPECT_EQ(ALLOT_SLOT_LIVE, 2);
  EXPECT_EQ(ALLOT_SLOT_ENDING, 3);
  EXPECT_EQ(ALLOT_SLICE_FAIL_CLOSED, 1u);
  EXPECT_EQ(ALLOT_SLICE_SOFTWARE, 2u);
  EXPECT_EQ(ALLOT_SLICE_DEFAULT, 4u);
  EXPECT_EQ(ALLOT_SLICE_LEAVING, 8u);
  EXPECT_EQ(ALLOT_SLICE_FROZEN, 16u);
  EXPECT_EQ(ALLOT_SLICE_EVICTED, 32u);
  EXPECT_EQ(ALLOT_SLICE_RETURNS, 64u);
  EXPECT_EQ(ALLOT_SLICE_SWAP_FAST, 128u);
  EXPECT_EQ(ALLOT_SLICE_EVICTED_FAST, 256u);
  EXPECT_EQ(ALLOT_EVICTED_FAST, 2);
  EXPECT_EQ(ALLOT_SWAP_OUT, 2);
  EXPECT_EQ(ALLOT_SWAP_DRIVER, 6);
  EXPECT_EQ(ALLOT_CLIENT_ACTIVE, 1u);
  EXPECT_EQ(ALLOT_CLIENT_SATURATES, 2u);
  EXPECT_EQ(ALLOT_CLIENT_OPEN, 4u);
  EXPECT_EQ(ALLOT_CLIENT_FROZEN, 8u);
  EXPECT_EQ(ALLOT_CLIENT_DETACHED, 16u);
  EXPECT_EQ(ALLOT_CLIENT_REPAYS, 32u);
  EXPECT_EQ(ALLOT_CLIENT_DRAINS, 64u);
  EXPECT_EQ(ALLOT_CLIENT_AWAKE, 128u);
  EXPECT_EQ(ALLOT_REASON_NO_AGENT, 7);
}

TEST(RegionAbi, AMagicReadsAsText) {
  const uint64_t magic = ALLOT_REGION_MAGIC;
  EXPECT_STREQ(reinterpret_cast<const char*>(&magic), "ALLOT1");
}

TEST(RegionAbi, SlotWordsComeApartAsTheyWerePut) {
  const uint64_t word = ALLOT_SLOT_WORD(ALLOT_SLOT_LIVE, 0xabcdef, 4194303);
  EXPECT_EQ(ALLOT_SLOT_STATE(word), ALLOT_SLOT_LIVE);
  EXPECT_EQ(ALLOT_SLOT_GENERATION(word), 0xabcdefu);
  EXPECT_EQ(ALLOT_SLOT_PID(word), 4194303u);
  EXPECT_EQ(ALLOT_SLOT_GENERATION(ALLOT_SLOT_WORD(0, 0x1000000u, 0)), 0u);
  EXPECT_EQ(ALLOT_SLOT_PID(ALLOT_SLOT_WORD(0xff, 0xffffff, 0)), 0u);
}

TEST(RegionAbi, SwapWordsComeApartAsTheyWerePut) {
  const uint32_t word = ALLOT_SWAP_WORD(0x1abcdefu, ALLOT_SWAP_OUT);
  EXPECT_EQ(ALLOT_SWAP_SERIAL(word), 0xabcdefu);
  EXPECT_EQ(ALLOT_SWAP_STATE(word), static_cast<uint32_t>(ALLOT_SWAP_OUT));
}

// The checks on a GPU run without this header, so their script repeats numbers of it: each line
// "NAME = NUMBER" there must be one of these.
TEST(RegionAbi, TheNumbersOfTheCheckScriptAreTheHeaders) {
  const std::map<std::string, uint64_t> numbers = {
      {"FLAGS", offsetof(AllotHeader, flags)},
      {"CONFIG_SEQUENCE", offsetof(AllotHeader, config_sequence)},
      {"WAKE_SEQ", offsetof(AllotHeader, wake_seq)},
      {"CLIENTS", offsetof(AllotSliceFile, clients)},
      {"CLIENT_BYTES", sizeof(AllotGpuClient)},
      {"CLIENT_COUNT", ALLOT_MAX_CLIENTS},
      {"CLIENT_FLAGS", offsetof(AllotGpuClient, flags)},
      {"CLIENT_TIMESLICE", offsetof(AllotGpuClient, timeslice_us)},
      {"CLIENT_BUSY", offsetof(AllotGpuClient, busy_permille)},
      {"CLIENT_FOOTPRINT", offsetof(AllotGpuClient, footprint_permille)},
      {"CLIENT_WINDOW", offsetof(AllotGpuClient, window_permille)},
      {"CLIENT_SATURATES", ALLOT_CLIENT_SATURATES},
      {"CLIENT_AWAKE", ALLOT_CLIENT_AWAKE},
      {"CLIENT_CREDIT", ALLOT_CLIENT_CREDIT},
      {"CLIENT_WAITS", ALLOT_CLIENT_WAITS},
      {"SLOT_WORDS", offsetof(AllotSliceFile, slot_words)},
      {"FROZEN", ALLOT_SLICE_FROZEN},
      {"CLIENT_ACTIVE", ALLOT_CLIENT_ACTIVE},
      {"CLIENT_OPEN", ALLOT_CLIENT_OPEN},
      {"CLIENT_FROZEN", ALLOT_CLIENT_FROZEN},
  };
  std::ifstream script(ALLOT_CHECK_SCRIPT);
  std::map<std::string, uint64_t> found;
  for (std::string line; std::getline(script, line);) {
    const size_t name_end = line.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ_");
    if (name_end == 0 || name_end == std::string::npos || line.compare(name_end, 3, " = ") != 0) {
      continue;
    }
    found[line.substr(0, name_end)] = std::stoull(line.substr(name_end + 3));
  }
  EXPECT_EQ(found, numbers);
}

TEST(EnvAbi, NamesStandInScripts) {
  EXPECT_STREQ(ALLOT_ENV_SLICE, "ALLOT_TENANT");
  EXPECT_STREQ(ALLOT_ENV_GPU_MEM, "ALLOT_GPU_MEM");
  EXPECT_STREQ(ALLOT_ALIAS_GPU_MEM, "CUDA_DEVICE_MEMORY_LIMIT");
}

}  // namespace
