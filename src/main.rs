//! The command line and nothing else.

fn main() -> std::process::ExitCode {
    mercat::cli::main()
}
