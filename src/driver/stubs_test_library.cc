// The shared library that stubs_test.cc loads: the generated CUDA stubs with a resolver that the
// test chooses. It stands where the shim will stand.
extern "C" {

extern void* allot_cuda_slots[];
__attribute__((visibility("default"))) void allot_test_set_resolver(
    void* (*resolver)(unsigned index));
__attribute__((visibility("default"))) void* allot_test_slots();
void* allot_cuda_resolve_entry(unsigned index);

static void* (*chosen)(unsigned index) = nullptr;

void allot_test_set_resolver(void* (*resolver)(unsigned index)) {
  chosen = resolver;
}
void* allot_test_slots() {
  return allot_cuda_slots;
}
void* allot_cuda_resolve_entry(unsigned index) {
  return chosen == nullptr ? nullptr : chosen(index);
}

}  // extern "C"
