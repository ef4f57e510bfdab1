//! How many new keys find no place when the table is as full as it may be.

use balancer_common::abi::{Address4, Port};
use balancer_common::table::{Taker, buckets_for, find, insert, lines_for, remove};

use super::cells::{Cells, Key, Random};

const FLOWS: u32 = 65_536;
const CHURNS: u32 = 10;

/// A flow's keys: from the client and from the backend.
fn keys(random: &mut Random) -> [Key; 2] {
    let (client, port) = (random.next() as u32, random.next() as u16);
    let client = Address4::from_words([client]);
    let [vip, snat, backend] = [1, 2, 3].map(|last| Address4::from_wire([10, 0, 0, last]));
    let (http, snat_port) = (Port::new(443), Port::new(random.next() as u16));
    let from_client =
        Key { source: client, destination: vip, source_port: Port::new(port), destination_port: http };
    // Behind one SNAT address there are 65,536 ports, so the backend's side takes a part of the client's word too.
    let backend = Address4::from_words([backend.to_words()[0] ^ (random.next() as u32 & 0xff00)]);
    [from_client, Key { source: backend, destination: snat, source_port: http, destination_port: snat_port }]
}

/// Puts a key in that isn't there.
fn add(table: &Cells, key: &Key) -> Option<Key> {
    insert(table, table.hash(key), (0, 0), |line, _| table.fill(line, key, 0)).ok().map(|_| *key)
}

#[test]
fn of_ten_thousand_new_keys_less_than_one_finds_a_full_table_without_place_for_it() {
    assert_eq!(lines_for(FLOWS), FLOWS * 7 / 2);
    let table = Cells::new(buckets_for(FLOWS), 7);
    let mut random = Random(11);
    let (mut flows, mut asked, mut refused) = (Vec::<[Key; 2]>::new(), 0_u32, 0_u32);
    for _ in 0..FLOWS * (1 + CHURNS) {
        if flows.len() == FLOWS as usize {
            let gone = flows.swap_remove(random.below(FLOWS) as usize);
            for key in gone {
                let place = find(&table, table.hash(&key), &key).unwrap();
                assert!(remove(&table, place, Taker::PacketPath));
            }
        }
        let [client, backend] = keys(&mut random);
        if find(&table, table.hash(&client), &client).is_some()
            || find(&table, table.hash(&backend), &backend).is_some()
        {
            continue;
        }
        asked += 2;
        match (add(&table, &client), add(&table, &backend)) {
            (Some(client), Some(backend)) => flows.push([client, backend]),
            (one, other) => {
                refused += u32::from(one.is_none()) + u32::from(other.is_none());
                for key in one.into_iter().chain(other) {
                    let place = find(&table, table.hash(&key), &key).unwrap();
                    assert!(remove(&table, place, Taker::PacketPath));
                }
            }
        }
    }
    println!("{refused} of {asked} keys refused");
    assert!(refused < asked / 10_000, "{refused} of {asked} keys refused");
    assert!(flows.len() as u32 >= FLOWS - 1);
}
