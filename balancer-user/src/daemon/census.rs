//! Counting, ageing and listing flows beside the loop: one walk at a time, shared by all who wait for what it finds.
//!
//! A walk takes as long as there are flows, so the loop never waits for one. Whoever asks while one is under way waits
//! for the next: the numbers are never older than the question. Who asks is bounded by the control server.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::control::protocol::{Stats, Status};
use crate::dataplane::flows::{Census, Fill, FlowTable};

use super::listing::Order;
use super::view::{self, Seen};

/// What a walk found, and how full the tables are.
pub(super) type Walked = (Census, Fill);

/// Somebody who waits for numbers, with what else the answer tells.
pub(super) enum Waiter {
    /// For the status document.
    Status(Seen, oneshot::Sender<Status>),
    /// For the counters.
    Stats(Seen, oneshot::Sender<Stats>),
    /// For both.
    Picture(Seen, oneshot::Sender<(Status, Stats)>),
}

/// Counts flows for those who wait.
pub(super) struct Counter {
    table: Arc<FlowTable>,
    /// One is under way.
    walks: bool,
    current: Vec<Waiter>,
    next: Vec<Waiter>,
    /// For the next walk to carry out; the control server lets few of them be there at once.
    orders: Vec<Order>,
    back: mpsc::Sender<Walked>,
}

impl Counter {
    /// What comes to `back`'s receiver belongs into [`Counter::walked`].
    pub(super) const fn new(table: Arc<FlowTable>, back: mpsc::Sender<Walked>) -> Self {
        Self { table, walks: false, current: Vec::new(), next: Vec::new(), orders: Vec::new(), back }
    }

    /// Answers as soon as flows have been counted once more.
    pub(super) fn ask(&mut self, waiter: Waiter) {
        self.next.retain(|waiter| !waiter.is_gone());
        self.next.push(waiter);
        self.start();
    }

    /// Lists flows as soon as they have been counted once more: what is listed has not outlived its time.
    pub(super) fn list(&mut self, order: Order) {
        self.orders.retain(|order| !order.is_gone());
        self.orders.push(order);
        self.start();
    }

    /// Time to look for flows whose time is over; a walk under way will do.
    pub(super) fn age(&mut self) {
        self.start();
    }

    /// A walk has ended.
    pub(super) fn walked(&mut self, census: &Census) {
        self.walks = false;
        let waiters = std::mem::take(&mut self.current);
        waiters.into_iter().for_each(|waiter| waiter.answer(census));
        if !self.next.is_empty() || !self.orders.is_empty() {
            self.start();
        }
    }

    fn start(&mut self) {
        if std::mem::replace(&mut self.walks, true) {
            return;
        }
        let table = self.table.clone();
        self.current = std::mem::take(&mut self.next);
        let orders = std::mem::take(&mut self.orders);
        let back = self.back.clone();
        tokio::task::spawn_blocking(move || {
            let census = table.sweep();
            orders.into_iter().for_each(|order| order.carry_out(&table));
            // The loop has ended: nobody counts any more.
            let _ = back.blocking_send((census, table.fill()));
        });
    }
}

impl Waiter {
    fn is_gone(&self) -> bool {
        match self {
            Self::Status(_, reply) => reply.is_closed(),
            Self::Stats(_, reply) => reply.is_closed(),
            Self::Picture(_, reply) => reply.is_closed(),
        }
    }

    fn answer(self, census: &Census) {
        // Who asked may be gone.
        match self {
            Self::Status(seen, reply) => drop(reply.send(view::status(seen, census))),
            Self::Stats(seen, reply) => drop(reply.send(view::stats(seen, census))),
            Self::Picture(seen, reply) => {
                let status = view::status(seen.clone(), census);
                drop(reply.send((status, view::stats(seen, census))));
            }
        }
    }
}
