// The second file of a slice in a folder of all users: what only its owner may read.
//
// Others must see a slice's limits and clients: shares are counted from them, and agents compute
// schedules from them. They need not see its processes and what each holds. So the file has a head
// for everybody, `NAME.slice`, with name, locks and life as any slice file, and a body, which is
// mapped behind it (abi/region.h).
//
// What must not happen here: a body is used that the head's owner has not made; a body stays
// without its head. Its name has the slice's moment of creation in it, so the bodies of two slices
// of one name never meet.
#pragma once

#include "shm/region_folder.h"
#include "shm/slice_file.h"
#include "sys/file.h"

namespace allot::shm {

inline constexpr uint64_t kFileBytes = sizeof(AllotSliceFile);
inline constexpr uint64_t kHeadBytes = ALLOT_HEAD_BYTES;
static_assert(kHeadBytes == offsetof(AllotSliceFile, slot_words) && kHeadBytes % 4096 == 0);

inline bool has_body(const AllotHeader& header) {
  return header.file_bytes == kHeadBytes;
}

// A new body without a name, sized; locked until it and its mappings are closed, so that nobody
// takes it for an orphan before it has its head. Errors: as sys::NewFile and set_size.
Result<sys::NewFile> new_body(const Folder& folder);

// Gives it its name and takes that away again. `header` is the head's, checked.
Result<void> publish_body(sys::NewFile& body, const AllotHeader& header);
void remove_body(int folder, const AllotHeader& header);

// Opens the body of a checked head. Errors: kNoPermission, kNotFound, kDamaged (another owner or
// size).
Result<sys::Fd> open_body(int folder, const AllotHeader& header, uint32_t owner, bool writable);

// Maps the file, or head and body as one.
Result<AllotSliceFile*> map_whole(int head, int body, bool writable);

// Reads head and body, or one file where `body` is negative, up to the slots that may be in use,
// into zeroed memory. False where bytes are missing.
bool read_whole(int head, int body, AllotSliceFile* file);

// Makes a copy of a head alone usable: no slot, the slot words of clients that live.
void complete_head(AllotSliceFile* file, int head);

}  // namespace allot::shm
