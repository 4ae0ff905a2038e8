// See seats.h. A seat counts while the process it names still stands in its slot; whether its agent can
// run is another question, answered by the heartbeat.
#include "cli/region/agent_view.h"

#include "core/shared.h"
#include "shm/tenant_file.h"
#include "sys/clock.h"

namespace allot::cli {

using core::load;

std::vector<SeatView> read_seats(const AllotTenantFile& file) {
  const uint64_t now = sys::monotonic_ns();
  std::vector<SeatView> seats;
  for (const AllotTimeSeat& from : file.seats) {
    const uint64_t owner = load(from.owner);
    const uint32_t slot = load(from.slot);
    const uint32_t gpu = load(from.gpu);
    if (owner == 0 || slot >= ALLOT_MAX_SLOTS || gpu >= ALLOT_MAX_GPUS) continue;
    if (load(file.slot_words[slot]) != owner) continue;
    SeatView seat;
    seat.pid = ALLOT_SLOT_PID(owner);
    seat.slot = slot;
    seat.gpu = gpu;
    seat.flags = load(from.flags);
    seat.level = load(from.level);
    seat.reason = load(from.reason);
    seat.slice_us = load(from.slice_us);
    seat.busy_permille = load(from.busy_permille);
    seat.window_permille = load(from.window_permille);
    seat.used_ns = load(from.used_ns);
    seat.throttled_ns = load(from.throttled_ns);
    const uint64_t heartbeat = load(from.heartbeat_ns);
    seat.answers = heartbeat >= now || now - heartbeat < ALLOT_SEAT_STALE_NS;
    seats.push_back(seat);
  }
  return seats;
}

bool has_ended(const AllotTenantFile& file, const SeatView& seat) {
  return !shm::process_alive(nullptr, seat.pid, file.slots[seat.slot]);
}

const char* state_text(const SeatView& seat) {
  if (seat.frozen()) return "frozen";
  if (!seat.active()) return "idle";
  return seat.open() ? "active" : "throttled";
}

std::string state_text(const std::vector<SeatView>& seats, uint32_t gpu, bool frozen) {
  bool active = false;
  bool throttled = false;
  bool running = false;  // something that a freeze has not stopped
  for (const SeatView& seat : seats) {
    if (seat.gpu != gpu || !seat.answers) continue;
    running = running || !(seat.frozen() || seat.untouched());
    active = active || (seat.active() && seat.open());
    throttled = throttled || (seat.active() && !seat.open());
  }
  if (frozen) return running ? "freezing" : "frozen";
  return active ? "active" : throttled ? "throttled" : "idle";
}

const char* reason_text(uint32_t reason) {
  switch (reason) {
    case ALLOT_REASON_NO_CHANNELS:
      return "no channel group of the process was seen on the card";
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
    default:
      return "?";
  }
}

}  // namespace allot::cli
