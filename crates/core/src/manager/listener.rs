use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::jitter;
use super::lane::Lane;
use super::session::Session;
use crate::driver::Wake;

/// A broken connection is made anew this soon; each failure doubles the pause.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A listener that cannot connect is not urgent: the fetcher looks every `delay` anyway.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Rings the fetcher's bell when the database says that something was enqueued.
///
/// It reconnects by itself and apart from the fetcher: after a restart of the server both come
/// back, and until the listener is back the fetcher asks as it does on engines that cannot tell.
pub(super) fn run(session: &Arc<Session>, lane: &Arc<Lane>) {
    let mut pause = FIRST_PAUSE;
    while !lane.is_stopping(session) {
        if lane.database.is_trusted() {
            let ended = lane.database.driver().listen(&mut |wake| {
                match wake {
                    // Whatever was enqueued before the connection stood made no sound.
                    Wake::Connected => {
                        pause = FIRST_PAUSE;
                        lane.listening.store(true, Ordering::Release);
                        lane.database.bell.ring();
                    }
                    Wake::Queue(queue) => {
                        if session.queues.iter().any(|ours| **ours == *queue) {
                            lane.database.bell.ring();
                        }
                    }
                    Wake::Tick => {}
                }
                // After an outage the old connection may be half open: a new one is made.
                !lane.is_stopping(session) && lane.database.is_up()
            });
            lane.listening.store(false, Ordering::Release);
            if let Err(error) = ended {
                log::debug!("database {:?}: listener: {error}", &*lane.database.name);
            }
        }
        std::thread::sleep(jitter(pause));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
