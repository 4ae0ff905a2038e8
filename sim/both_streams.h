// An entry in both forms: with the legacy default stream, and with the thread's own under the name
// that ends in _ptsz. BOTH(cuStreamQuery, ARGS(CUstream s), query(s, kPtds)) defines the two.
//
// For files that define entries, included after runtime.h.
#pragma once

#define ARGS(...) (__VA_ARGS__)
#define BOTH(name, args, call)    \
  SIM_API name args {             \
    SIM_ENTER();                  \
    constexpr bool kPtds = false; \
    return call;                  \
  }                               \
  SIM_API name##_ptsz args {      \
    SIM_ENTER();                  \
    constexpr bool kPtds = true;  \
    return call;                  \
  }
