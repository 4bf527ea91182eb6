use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::driver::{ErrorKind, Tidings, Wake};
use crate::session::Session;
use crate::session::lane::Lane;
use crate::session::loops::supervise;
use crate::session::pulses::Kind;
use crate::tools::causes::with_causes;
use crate::tools::random::jitter;

/// A broken connection is made anew this soon; each failure doubles the pause.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// A listener that cannot connect is not urgent: the fetcher looks every `delay` anyway.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// One whose login is refused does not mend itself, and servers shut out whoever asks too often.
const REFUSED_PAUSE: Duration = Duration::from_secs(300);

/// Rings the fetcher's bell when the database says that something was enqueued.
///
/// It reconnects by itself and apart from the fetcher: after a restart of the server both come
/// back, and until the listener is back the fetcher asks as it does on engines that cannot tell.
pub(crate) fn run(session: &Arc<Session>, lane: &Arc<Lane>) {
    supervise(lane, Kind::Listen, || {
        // After a panic too: the fetcher would wait for what nobody hears.
        lane.listening.store(false, Ordering::Release);
        listen_on(session, lane);
    });
}

fn listen_on(session: &Arc<Session>, lane: &Arc<Lane>) {
    let (mut pause, mut was_told) = (FIRST_PAUSE, false);
    while !lane.is_stopping() {
        if lane.database.is_trusted() {
            let ended = lane.database.driver().listen(&mut |wake| {
                lane.pulses.beat(Kind::Listen);
                match wake {
                    // Whatever was enqueued or ordered before the connection stood made no sound.
                    Wake::Connected => {
                        (pause, was_told) = (FIRST_PAUSE, false);
                        lane.listening.store(true, Ordering::Release);
                        lane.database.bell.ring();
                        lane.note_order();
                        // Whoever waits asks again, for this process did not hear it.
                        lane.database.driver().tell_news(Tidings::Worker);
                    }
                    Wake::Asked => lane.note_asked(),
                    Wake::Orders => lane.note_order(),
                    Wake::Queue(queue) => {
                        if session.queues.iter().any(|ours| **ours == *queue) {
                            lane.database.bell.ring();
                        }
                    }
                    Wake::Tick => {}
                }
                // After an outage the old connection may be half open: a new one is made.
                !lane.is_stopping() && lane.database.is_up()
            });
            lane.listening.store(false, Ordering::Release);
            if let Err(error) = ended {
                let (name, text) = (&*lane.database.name, with_causes(&error));
                if error.kind() == ErrorKind::Permission {
                    if !was_told {
                        log::warn!("database {name:?}: {text}; it is asked for work instead");
                    }
                    (was_told, pause) = (true, REFUSED_PAUSE);
                } else {
                    log::debug!("database {name:?}: listener: {text}");
                }
            }
        }
        lane.listener_bell.wait(jitter(pause));
        pause = (pause * 2).min(MAX_PAUSE);
    }
}
