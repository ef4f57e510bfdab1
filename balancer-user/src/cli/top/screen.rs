//! The terminal as `top` has it: raw, on its second screen, without a cursor; and as it was before, however that ends.

use std::io::{self, Stdout, stdout};
use std::panic;

use crossterm::cursor::{Hide, Show};
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use super::draw;
use super::model::Model;
use crate::cli::layout::wants_colour;

/// While this lives the terminal is ours.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    is_coloured: bool,
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        // The message of a panic belongs onto the screen that stays.
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            put_back();
            before(panic);
        }));
        enable_raw_mode()?;
        let terminal = execute!(stdout(), EnterAlternateScreen, Hide)
            .and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        match terminal {
            Ok(terminal) => Ok(Self { terminal, is_coloured: wants_colour() }),
            Err(error) => {
                put_back();
                Err(error)
            }
        }
    }

    pub(super) fn draw(&mut self, model: &Model) -> io::Result<()> {
        self.terminal.draw(|frame| draw::draw(model, frame, self.is_coloured)).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        put_back();
    }
}

/// Whether or not all of it was taken; the terminal may be gone.
fn put_back() {
    let _gone = execute!(stdout(), LeaveAlternateScreen, Show);
    let _gone = disable_raw_mode();
}
