//! What is told to those who trace: only what they want, the rare before the usual, and nothing once their time is over.
//! That what is told is true, all cases show: each of their packets is traced.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use balancer_common::abi::Traced;
use balancer_common::limits::{TRACE_MOMENT_NS, TRACED_UNUSUAL, TRACED_USUAL};
use balancer_common::verdict::Reason;
use balancer_tests::case::{Borrowed, Gateway, SCENES, SNAT4, Side, on_a_gateway, tcp, usual};
use balancer_tests::packet::Packet;
use balancer_tests::poll::poll_until;
use balancer_user::dataplane::traces::Wish;

/// Longer than any test.
const LASTS: Duration = Duration::from_secs(3600);

fn gateway() -> Result<Borrowed> {
    Gateway::told(&usual())
}

/// Its fate, and for whom it was told.
fn after(gateway: &mut Gateway, packet: &Packet) -> Result<Vec<(u8, u8)>> {
    gateway.run(Side::of(packet.ethernet.source), &packet.to_frame())?;
    Ok(gateway.traced().iter().map(|packet| (packet.fate, packet.filters)).collect())
}

/// What wasn't read yet.
fn all_told(gateway: &mut Gateway) -> Vec<Traced> {
    let read = std::iter::repeat_with(|| gateway.traced()).take_while(|some| !some.is_empty());
    read.flatten().collect()
}

#[test]
fn a_clients_packets_are_told_both_ways_and_nobody_elses() -> Result<()> {
    on_a_gateway("trace_client", || {
        let mut gateway = gateway()?;
        for scene in SCENES {
            let (flow, other) = (scene.flow(), scene.flow().of(scene.other_client));
            gateway.begin_anew()?;
            gateway.trace(&[Wish { client: Some(flow.client.ip()), service: None }], LASTS)?;
            for packet in [flow.syn(), flow.syn_ack(), flow.request()] {
                let told = after(&mut gateway, &packet)?;
                ensure!(told == [(Traced::FORWARDED, 1)], "{}: {told:?} of {packet:?}", scene.name);
            }
            ensure!(after(&mut gateway, &other.syn())?.is_empty(), "{}: another client's", scene.name);
            let to_the_kernel = tcp(flow.client, SocketAddr::new(scene.vip(), 22)).syn();
            let told = after(&mut gateway, &to_the_kernel)?;
            ensure!(told == [(Traced::PASSED, 1)], "{}: {told:?} of one that passes", scene.name);
        }
        Ok(())
    })
}

#[test]
fn a_services_packets_are_told_and_no_other_services() -> Result<()> {
    on_a_gateway("trace_service", || {
        let mut gateway = gateway()?;
        for scene in SCENES {
            let (web, api) = (scene.flow(), scene.flow().to_api().of(scene.other_client));
            let slot = gateway.service_slot(scene.web.listen).context("a service of the plan")?;
            gateway.begin_anew()?;
            gateway.trace(&[Wish { client: None, service: Some(slot) }], LASTS)?;
            for packet in [web.syn(), web.syn_ack()] {
                let told = after(&mut gateway, &packet)?;
                ensure!(told == [(Traced::FORWARDED, 1)], "{}: {told:?} of {packet:?}", scene.name);
            }
            for packet in [api.syn(), api.syn_ack(), tcp(web.client, SocketAddr::new(scene.vip(), 22)).syn()]
            {
                let told = after(&mut gateway, &packet)?;
                ensure!(told.is_empty(), "{}: {told:?} of {packet:?}", scene.name);
            }
        }
        Ok(())
    })
}

#[test]
fn a_packet_is_told_once_for_all_who_want_it() -> Result<()> {
    on_a_gateway("trace_several", || {
        let (mut gateway, flow) = (gateway()?, SNAT4.flow());
        let of = |client: SocketAddr| Wish { client: Some(client.ip()), service: None };
        let wishes = [of(flow.client), of(SNAT4.other_client), Wish::default(), of(flow.client)];
        gateway.trace(&wishes, LASTS)?;
        let told = after(&mut gateway, &flow.syn())?;
        ensure!(told == [(Traced::FORWARDED, 0b1101)], "{told:?}");
        let told = after(&mut gateway, &tcp(flow.client, SocketAddr::new(SNAT4.vip(), 22)).syn())?;
        ensure!(told == [(Traced::PASSED, 0b1001)], "what passes is only a client's: {told:?}");
        Ok(())
    })
}

#[test]
fn what_is_rare_is_told_however_much_goes_on_and_all_else_is_counted() -> Result<()> {
    on_a_gateway("trace_flood", || {
        let (mut gateway, flow) = (gateway()?, SNAT4.flow());
        for packet in [flow.syn(), flow.syn_ack(), flow.request()] {
            gateway.run(Side::of(packet.ethernet.source), &packet.to_frame())?;
        }
        let stray = flow.of(SNAT4.other_client).request().to_frame();
        gateway.run(Side::Wan, &stray)?;
        ensure!(gateway.traced().len() == 1, "there was room for it");
        // Far more than may be told of in as many moments as this takes.
        const USUAL: u64 = 20_000;
        let data = flow.request().payload(b"usual").to_frame();
        for _ in 0..USUAL / 2 {
            gateway.run_on(Side::Wan, &data)?;
        }
        gateway.run_on(Side::Wan, &stray)?;
        for _ in 0..USUAL / 2 {
            gateway.run_on(Side::Wan, &data)?;
        }
        let told = all_told(&mut gateway);
        let strays = told.iter().filter(|packet| packet.reason == Reason::NoFlow as u8);
        ensure!(
            strays.filter(|packet| packet.fate != Traced::FORWARDED).count() == 1,
            "the stray one isn't told"
        );
        let untold = gateway.untold()?[0];
        ensure!(told.len() as u64 + untold == USUAL + 1, "{} told and {untold} not", told.len());
        ensure!(untold > USUAL / 2, "only {untold} were too many");
        Ok(())
    })
}

#[test]
fn a_moment_has_room_for_so_many_and_the_next_one_again() -> Result<()> {
    on_a_gateway("trace_moment", || {
        let mut gateway = gateway()?;
        // No SYN of this one is known: each is told as a drop or an answer.
        let stray = SNAT4.flow().syn_ack().to_frame();
        gateway.run(Side::Lan, &stray)?;
        for _ in 0..4 * TRACED_UNUSUAL {
            gateway.run_on(Side::Lan, &stray)?;
        }
        let mut moments = BTreeMap::<u64, u32>::new();
        for packet in all_told(&mut gateway) {
            *moments.entry(packet.at_ns / TRACE_MOMENT_NS).or_default() += 1;
        }
        let most_at_once = moments.into_values().max().unwrap_or_default();
        // The clock that moments are told by is behind the packets' by some milliseconds.
        ensure!(most_at_once <= 2 * TRACED_UNUSUAL, "{most_at_once} in one moment");
        ensure!(most_at_once > TRACED_USUAL, "only {most_at_once} in a moment");
        Ok(())
    })
}

#[test]
fn nothing_is_told_once_its_time_is_over() -> Result<()> {
    on_a_gateway("trace_over", || {
        let (mut gateway, flow) = (gateway()?, SNAT4.flow());
        gateway.trace(&[Wish::default()], Duration::ZERO)?;
        ensure!(gateway.is_tracing()?, "it was switched on");
        // The program's clock is some milliseconds behind.
        poll_until(Duration::from_secs(10), "the end of its time", || {
            after(&mut gateway, &flow.syn()).map_err(|error| format!("{error:#}"))?;
            match gateway.is_tracing() {
                Ok(false) => Ok(()),
                still => Err(format!("{still:?}")),
            }
        })?;
        ensure!(after(&mut gateway, &flow.syn())?.is_empty(), "it is told");
        gateway.trace(&[], LASTS)?;
        ensure!(!gateway.is_tracing()?, "nobody wants anything");
        Ok(())
    })
}
