// Programs built with -fsanitize=address start although we are loaded before their runtime.
//
// That runtime refuses to start unless it is the first library of the process, because its malloc
// must come first. It does: we export no malloc. The runtime asks this function for its defaults
// before it looks; a program that defines the function itself wins and then needs
// ASAN_OPTIONS=verify_asan_link_order=0.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options();
const char* __asan_default_options() {
  return "verify_asan_link_order=0";
}
