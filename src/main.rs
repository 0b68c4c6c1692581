//! The command line and the memory allocator, and nothing else.

/// Returns freed memory to the system, which the C library's allocator keeps: after a flood of requests the shop is as small
/// as before.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    mercat::cli::main()
}
