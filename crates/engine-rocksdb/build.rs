//! Compiles the classes through which RocksDB reads the adapter's files, against the headers of the RocksDB that is linked.

#![allow(clippy::disallowed_methods, reason = "cargo speaks through the environment")]

fn main() {
    println!("cargo::rerun-if-changed=src/files.cc");
    println!("cargo::rerun-if-env-changed=ROCKSDB_INCLUDE_DIR");
    let Ok(headers) = std::env::var("ROCKSDB_INCLUDE_DIR") else {
        println!(
            "cargo::error=ROCKSDB_INCLUDE_DIR is not set, which .cargo/config.toml does for every build in the checkout"
        );
        return;
    };
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        // RocksDB is compiled without type information, so its classes have none to derive from.
        .flag("-fno-rtti")
        .include(headers)
        .file("src/files.cc")
        .compile("ardb_files");
}
