//! What a table of figures must say about where it was made.

use std::fs;
use std::process::Command;

/// The processor, the system, the compiler, the allocator and the hasher, one line each.
pub fn lines() -> Vec<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        cpuinfo.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut processor = field("model name").unwrap_or_else(|| "unknown processor".to_owned());
    if let (Some(family), Some(model)) = (field("cpu family"), field("model\t")) {
        processor += &format!(" (family {family}, model {model})");
    }
    if let Some(clock) = field("cpu MHz") {
        processor += &format!(", {clock} MHz");
    }
    if let Some(cache) = field("cache size") {
        processor += &format!(", {cache} cache a core");
    }
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| text.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()))
        .map_or("unknown".to_owned(), |kib| format!("{:.1} GiB", kib as f64 / (1 << 20) as f64));
    vec![
        format!("Machine: {processor}; {cores} cores visible, {memory} memory, shared with other work."),
        format!("System: Linux {}.", kernel.trim()),
        format!("Compiler: {}, release profile with fat LTO and one codegen unit.", compiler()),
        "Allocator: mimalloc, for both sides.".to_owned(),
        format!("Hasher: ahash ({} instructions), for both sides.", if aes() { "AES" } else { "no AES" }),
    ]
}

fn compiler() -> String {
    Command::new("rustc")
        .arg("-V")
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map_or("unknown rustc".to_owned(), |text| text.trim().to_owned())
}

/// Whether this build lets ahash use AES instructions; it decides at compile time, and without them mixes by multiplying.
fn aes() -> bool {
    cfg!(target_feature = "aes")
}
