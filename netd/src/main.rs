//! `micro`: one node of a micro network, and its command line. See the library of this package.

fn main() -> std::process::ExitCode {
    netd::cli::main()
}
