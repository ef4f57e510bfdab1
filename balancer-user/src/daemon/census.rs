//! Counting, ageing and listing flows beside the loop: one walk at a time, shared by all who wait for what it finds.
//!
//! A walk takes as long as there are flows, so the loop never waits for one. Whoever asks while one is under way waits
//! for the next: the numbers are never older than the question. Who asks is bounded by the control server.

use tokio::sync::{mpsc, oneshot};

use crate::control::protocol::{Stats, Status};
use crate::dataplane::flows::{Census, FlowTable};

use super::listing::Order;
use super::view::{self, Seen};

/// The table, on its way back from a walk, and what the walk found.
pub(super) type Walked = (FlowTable, Census);

/// Somebody who waits for numbers, with what else the answer tells.
pub(super) enum Waiter {
    /// For the status document.
    Status(Seen, oneshot::Sender<Status>),
    /// For the counters.
    Stats(Seen, oneshot::Sender<Stats>),
}

/// Counts flows for those who wait.
pub(super) struct Counter {
    /// Away while a walk is under way.
    table: Option<FlowTable>,
    current: Vec<Waiter>,
    next: Vec<Waiter>,
    /// For the next walk to carry out; the control server lets few of them be there at once.
    orders: Vec<Order>,
    back: mpsc::Sender<Walked>,
}

impl Counter {
    /// What comes out of the receiver belongs into [`Counter::walked`].
    pub(super) fn new(table: FlowTable) -> (Self, mpsc::Receiver<Walked>) {
        let (back, walked) = mpsc::channel(1);
        (Self { table: Some(table), current: Vec::new(), next: Vec::new(), orders: Vec::new(), back }, walked)
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
    pub(super) fn walked(&mut self, (table, census): Walked) {
        self.table = Some(table);
        let waiters = std::mem::take(&mut self.current);
        waiters.into_iter().for_each(|waiter| waiter.answer(&census));
        if !self.next.is_empty() || !self.orders.is_empty() {
            self.start();
        }
    }

    fn start(&mut self) {
        let Some(mut table) = self.table.take() else { return };
        self.current = std::mem::take(&mut self.next);
        let orders = std::mem::take(&mut self.orders);
        let back = self.back.clone();
        tokio::task::spawn_blocking(move || {
            let census = table.sweep();
            orders.into_iter().for_each(|order| order.carry_out(&table));
            // The loop has ended: nobody counts any more.
            let _ = back.blocking_send((table, census));
        });
    }
}

impl Waiter {
    fn is_gone(&self) -> bool {
        match self {
            Self::Status(_, reply) => reply.is_closed(),
            Self::Stats(_, reply) => reply.is_closed(),
        }
    }

    fn answer(self, census: &Census) {
        // Who asked may be gone.
        match self {
            Self::Status(seen, reply) => drop(reply.send(view::status(seen, census))),
            Self::Stats(seen, reply) => drop(reply.send(view::stats(seen, census))),
        }
    }
}
