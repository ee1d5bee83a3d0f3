// RocksDB's files as the adapter reads them: `files.rs` holds all that is done with them, and this the C++ classes that RocksDB
// calls, which its C interface has no words for. Only files that are read past the page cache are the adapter's own; all else
// is left to RocksDB's.

#include <cstring>
#include <limits>
#include <memory>
#include <string>

#include "rocksdb/env.h"
#include "rocksdb/file_system.h"

// As in RocksDB's db/c.cc. The tests would not live through another layout.
struct rocksdb_env_t {
  rocksdb::Env* rep;
  bool is_default;
};

extern "C" {
// The functions of files.rs.

// Opens a file. Null, with the system's error in `error`, if that fails.
const void* ardb_file_open(const char* path, int* error);
// Reads at most `length` bytes. How many, or the system's error, negative, or `kLater`.
int64_t ardb_file_read(const void* file, uint64_t offset, size_t length, char* into);
void ardb_file_close(const void* file);
}

namespace {

constexpr int64_t kLater = std::numeric_limits<int64_t>::min();
// What every disk can do.
constexpr size_t kAlignment = 4096;

rocksdb::IOStatus Failed(const std::string& path, int error) {
  std::string why(std::strerror(error));
  if (error == ENOENT) return rocksdb::IOStatus::PathNotFound(path, why);
  return rocksdb::IOStatus::IOError(path, why);
}

class File : public rocksdb::FSRandomAccessFile {
 public:
  File(std::string path, const void* file) : path_(std::move(path)), file_(file) {}
  ~File() override { ardb_file_close(file_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  rocksdb::IOStatus Read(uint64_t offset, size_t length, const rocksdb::IOOptions&, rocksdb::Slice* result,
                         char* into, rocksdb::IODebugContext*) const override {
    int64_t got = ardb_file_read(file_, offset, length, into);
    if (got >= 0) {
      *result = rocksdb::Slice(into, static_cast<size_t>(got));
      return rocksdb::IOStatus::OK();
    }
    *result = rocksdb::Slice();
    if (got == kLater) return rocksdb::IOStatus::Busy();
    return Failed(path_, static_cast<int>(-got));
  }

  bool use_direct_io() const override { return true; }
  size_t GetRequiredBufferAlignment() const override { return kAlignment; }
  // Nothing of it is in the page cache.
  rocksdb::IOStatus InvalidateCache(size_t, size_t) override { return rocksdb::IOStatus::OK(); }

 private:
  const std::string path_;
  const void* const file_;
};

class Files : public rocksdb::FileSystemWrapper {
 public:
  Files() : rocksdb::FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "ArdbFiles"; }

  rocksdb::IOStatus NewRandomAccessFile(const std::string& path, const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* result,
                                        rocksdb::IODebugContext* context) override {
    if (!options.use_direct_reads || options.use_mmap_reads) {
      return target()->NewRandomAccessFile(path, options, result, context);
    }
    int error = 0;
    const void* file = ardb_file_open(path.c_str(), &error);
    if (file == nullptr) return Failed(path, error);
    result->reset(new File(path, file));
    return rocksdb::IOStatus::OK();
  }
};

}  // namespace

extern "C" rocksdb_env_t* ardb_env_new() {
  return new rocksdb_env_t{rocksdb::NewCompositeEnv(std::make_shared<Files>()).release(), false};
}
