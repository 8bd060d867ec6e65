//! The binary: one call.

fn main() -> std::process::ExitCode {
    combo::main(frankenstein::deployment)
}
