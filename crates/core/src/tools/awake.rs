//! A clock that goes on while the machine sleeps. `Instant` stands still then on Linux, and a process that
//! was suspended with its machine would think its leases as young as before.

use std::time::Duration;

/// Since some moment in the past; it is never set.
#[cfg(target_os = "linux")]
pub(crate) fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn now() -> Duration {
    use std::sync::LazyLock;
    use std::time::Instant;
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on() {
        let before = now();
        std::thread::sleep(Duration::from_millis(2));
        let passed = now().saturating_sub(before);
        assert!((Duration::from_millis(1)..Duration::from_secs(60)).contains(&passed));
    }
}
