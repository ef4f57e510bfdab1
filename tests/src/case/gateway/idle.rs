//! Programs that are loaded and that no case needs at the moment.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use super::Gateway;

/// Programs that nobody uses: loading one takes longer than all cases of a topic.
static IDLE: Mutex<Vec<Gateway>> = Mutex::new(Vec::new());

/// A program of its own for as long as it lives.
pub struct Borrowed(pub(super) Option<Gateway>);

/// One that suits, if there is one.
pub(super) fn idle(suits: impl Fn(&Gateway) -> bool) -> Option<Gateway> {
    let mut idle = IDLE.lock().ok()?;
    let at = idle.iter().position(suits)?;
    Some(idle.swap_remove(at))
}

impl Deref for Borrowed {
    type Target = Gateway;

    fn deref(&self) -> &Gateway {
        self.0.as_ref().expect("it is there until it is given back")
    }
}

impl DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut Gateway {
        self.0.as_mut().expect("it is there until it is given back")
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let (Some(gateway), Ok(mut idle)) = (self.0.take(), IDLE.lock()) {
            idle.push(gateway);
        }
    }
}
