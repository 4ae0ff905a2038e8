// The work that went through the gate and has not ended, in nanoseconds of what it usually takes.
//
// Each submission adds its learned cost (work_cost.h) to its stream's account. Now and then an
// event is recorded behind it, a marker, which takes the account over; when the driver says that
// the event has passed, that much has ended. A launch that is measured has an event before it, too.
// The prober and threads that wait for room query the markers.
//
// What must not happen: an event in a stream that is captured, a question about an event of a
// context that is gone (the prober asks under the protection of streams.h, a thread asks about its
// own context), a lock.
#pragma once

#include <cstdint>

#include "driver/cuda_abi.h"
#include "shim/time/submit.h"
#include "shim/time/work_cost.h"

namespace allot::shim {

// What a submission carries from before the driver's call to after it.
struct WorkTicket {
  bool counted;      // in flight; else the rest means nothing
  uint64_t ns;       // expected
  uint64_t context;  // it goes to
  int marker;        // its first event is recorded: it is being measured; -1 = not
};

// Before and after the driver's call. `unknown_ns`: what to expect of work never measured;
// `most_ns`: a marker goes behind that much at the latest. The stream is not captured. One driver
// call or two, not blocking; expected_ns() makes none.
uint64_t expected_ns(const Submission& submission, uint64_t unknown_ns);
WorkTicket begin_work(const Submission& submission, uint64_t unknown_ns);
void end_work(const Submission& submission, const WorkTicket& work, CUresult result,
              uint64_t most_ns);

uint64_t in_flight_ns();
uint32_t in_flight_count();  // submissions
uint32_t markers_out();      // recorded and not known to have passed
uint64_t markers_passed();   // ever: moves while work ends

// Queries the markers of a context, which is current on the calling thread. Learns what was
// measured.
void ask_markers(uint64_t context);

// The same of one stream, of the context that is current, where that context has no markers: all of
// them are other contexts'. Must not be captured.
void ask_stream(const Submission& submission, uint64_t context);

// Work that is being measured waited for what was held back: nothing is learned from it.
void distrust_measurements();

// Nothing of the context is in flight any more: everything has ended, or it is gone with its
// events.
void nothing_in_flight(uint64_t context);
void in_flight_context_gone(uint64_t context);

void abandon_in_flight();

}  // namespace allot::shim
