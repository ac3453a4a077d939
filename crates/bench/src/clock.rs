//! Time on a core: what others do on the machine in the meantime is not in it.

use rustix::time::{ClockId, clock_gettime};

fn read(clock: ClockId) -> f64 {
    let now = clock_gettime(clock);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}

/// Seconds that this thread has run.
pub fn cpu_seconds() -> f64 {
    read(ClockId::ThreadCPUTime)
}

/// Seconds that all threads of this process have run.
pub fn process_seconds() -> f64 {
    read(ClockId::ProcessCPUTime)
}

/// Seconds that some work takes.
pub fn seconds(work: &mut dyn FnMut()) -> f64 {
    let begun = cpu_seconds();
    work();
    cpu_seconds() - begun
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_takes_no_time_and_work_does() {
        let slept = seconds(&mut || std::thread::sleep(std::time::Duration::from_millis(50)));
        assert!(slept < 0.04, "{slept}");
        let mut sum = 0u64;
        let worked = seconds(&mut || (0..5_000_000u64).for_each(|n| sum = std::hint::black_box(sum ^ n)));
        assert!(worked > 0.0);
    }
}
