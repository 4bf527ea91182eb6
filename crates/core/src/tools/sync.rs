//! Locks that a panic does not poison: what they guard stays valid, because each holder changes it in one step.

pub(crate) use std::sync::mpsc;

pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
