/* Links all guest libraries of the region into one shared object, for test guest_glibc_floor. */
int allot_floor_probe(void);
int allot_floor_probe(void) {
  return 0;
}
