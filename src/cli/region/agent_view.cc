// See agent_view.h. A client counts while the process that it names still has its slot. Whether its
// agent can run is another question, which the heartbeat answers.
#include "cli/region/agent_view.h"

#include "core/shared.h"
#include "shm/living.h"
#include "shm/slice_file.h"
#include "sys/clock.h"

namespace allot::cli {

using core::load;

std::vector<ClientView> read_clients(const AllotSliceFile& file) {
  const uint64_t now = sys::monotonic_ns();
  std::vector<ClientView> clients;
  for (const AllotGpuClient& from : file.clients) {
    const uint64_t owner = load(from.owner);
    const uint32_t slot = load(from.slot);
    const uint32_t gpu = load(from.gpu);
    if (owner == 0 || slot >= ALLOT_MAX_SLOTS || gpu >= ALLOT_MAX_GPUS) continue;
    if (load(file.slot_words[slot]) != owner) continue;
    ClientView client;
    client.pid = ALLOT_SLOT_PID(owner);
    client.slot = slot;
    client.gpu = gpu;
    client.flags = load(from.flags);
    client.level = load(from.level);
    client.reason = load(from.reason);
    client.timeslice_us = load(from.timeslice_us);
    client.busy_permille = load(from.busy_permille);
    client.window_permille = load(from.window_permille);
    client.used_ns = load(from.used_ns);
    client.throttled_ns = load(from.throttled_ns);
    const uint64_t heartbeat = load(from.heartbeat_ns);
    client.answers = heartbeat >= now || now - heartbeat < ALLOT_CLIENT_STALE_NS;
    clients.push_back(client);
  }
  return clients;
}

bool has_ended(const shm::Slice& slice, const ClientView& client) {
  return !shm::Living(slice).slot(client.slot);
}

const char* state_text(const ClientView& client) {
  if (client.frozen()) return "frozen";
  if (!client.active()) return "idle";
  return client.open() ? "active" : "throttled";
}

std::string state_text(const std::vector<ClientView>& clients, uint32_t gpu, bool frozen) {
  bool active = false;
  bool throttled = false;
  bool running = false;  // a client that a freeze has not stopped
  for (const ClientView& client : clients) {
    if (client.gpu != gpu || !client.answers) continue;
    running = running || !(client.frozen() || client.untouched());
    active = active || (client.active() && client.open());
    throttled = throttled || (client.active() && !client.open());
  }
  if (frozen) return running ? "freezing" : "frozen";
  return active ? "active" : throttled ? "throttled" : "idle";
}

const char* reason_text(uint32_t reason) {
  switch (reason) {
    case ALLOT_REASON_NO_CHANNELS:
      return "no channel group of the process was seen on the GPU";
    case ALLOT_REASON_NO_TIMESLICE:
      return "the driver refused to set a timeslice";
    case ALLOT_REASON_NO_DISABLE:
      return "the driver refused to stop channels";
    case ALLOT_REASON_MPS:
      return "an MPS client: its channels are the MPS server's";
    case ALLOT_REASON_CONTROL:
      return "the driver refused a call that had worked before";
    case ALLOT_REASON_NO_AGENT:
      return "allot's thread does not run";
    case ALLOT_REASON_CROWDED:
      return "not held to its share: 64 older slices have work on the GPU";
    case ALLOT_REASON_TABLES:
      return "it has more channels than allot can stop";
    default:
      return "";
  }
}

const char* reason_name(uint32_t reason) {
  switch (reason) {
    case ALLOT_REASON_NONE:
      return "none";
    case ALLOT_REASON_ASKED:
      return "asked";
    case ALLOT_REASON_NO_CHANNELS:
      return "no-channels";
    case ALLOT_REASON_NO_TIMESLICE:
      return "no-timeslice";
    case ALLOT_REASON_NO_DISABLE:
      return "no-disable";
    case ALLOT_REASON_MPS:
      return "mps";
    case ALLOT_REASON_CONTROL:
      return "control";
    case ALLOT_REASON_NO_AGENT:
      return "no-agent";
    case ALLOT_REASON_CROWDED:
      return "crowded";
    case ALLOT_REASON_TABLES:
      return "tables";
    default:
      return "?";
  }
}

namespace {

struct TableWords {
  uint32_t bit;
  const char* name;
  const char* text;
};
constexpr TableWords kTables[] = {
    {ALLOT_TABLE_CHANNELS, "channels",
     "more channels than allot can stop: its launches wait at the gate instead"},
    {ALLOT_TABLE_DESCRIPTORS, "descriptors",
     "more than 16 of the driver's descriptors at once: channels of the rest cannot be stopped"},
    {ALLOT_TABLE_STREAMS, "streams", "more than 1024 streams: it counts as busy"},
    {ALLOT_TABLE_CONTEXTS, "contexts", "more than 128 contexts: it counts as busy on all its GPUs"},
    {ALLOT_TABLE_MARKERS, "markers",
     "more contexts at work than allot has markers for: launches of the rest wait longer"},
    {ALLOT_TABLE_ACCOUNTS, "accounts", "more streams at work than allot counts one by one"},
    {ALLOT_TABLE_COSTS, "costs",
     "more kernels and graphs than allot learns: each of the rest counts as 5 ms"},
};

}  // namespace

std::vector<std::string> table_names(uint32_t full_tables) {
  std::vector<std::string> names;
  for (const TableWords& table : kTables) {
    if ((full_tables & table.bit) != 0) names.emplace_back(table.name);
  }
  return names;
}

std::string tables_text(uint32_t full_tables) {
  std::string text;
  for (const TableWords& table : kTables) {
    if ((full_tables & table.bit) == 0) continue;
    text += text.empty() ? "" : "; ";
    text += table.text;
  }
  return text;
}

}  // namespace allot::cli
