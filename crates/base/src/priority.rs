//! How threads give way to one another.

/// How far background work stands behind the threads that serve clients. Of a processor that both want it gets a tenth, and all of one that is idle.
pub const BACKGROUND: i32 = 10;
/// The last place: work that may as well wait.
pub const LAST: i32 = 19;

/// Puts the calling thread, and the threads that it will start, `places` (0 to 19) behind the others of the process. It cannot come back. If the
/// system refuses, it stays where it is.
pub fn stand_behind(places: i32) {
    // Zero is the calling thread: Linux keeps this number for each thread.
    let _ = rustix::process::setpriority_process(None, places);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_calling_thread_and_its_children_stand_behind() {
        let place = || rustix::process::getpriority_process(None).expect("a thread has a priority");
        let before = place();
        std::thread::scope(|scope| {
            let there = scope.spawn(|| {
                stand_behind(LAST);
                (place(), std::thread::spawn(place).join().expect("it does not panic"))
            });
            assert_eq!(there.join().expect("it does not panic"), (LAST, LAST));
        });
        assert_eq!(place(), before);
    }
}
