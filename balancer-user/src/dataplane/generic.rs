//! Generic netlink, as little of it as is needed: a family's number by its name, and a request with one answer.
//!
//! Deliberately absent: dumps, notifications, and a type for each message. What is asked here are two facts of an
//! interface, and both are a few attributes deep.

use std::io;

use futures_util::StreamExt;
use rtnetlink::packet_core::{
    NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
    NlasIterator,
};
use rtnetlink::proto::{ConnectionHandle, new_connection};
use rtnetlink::sys::SocketAddr;
use rtnetlink::sys::protocols::NETLINK_GENERIC;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::DataplaneError;
use super::neighbours::ANSWER;

/// The family that knows the others (GENL_ID_CTRL), its request for one, and what it says and hears.
const CONTROL: u16 = 0x10;
const CONTROL_GET_FAMILY: u8 = 3;
const CONTROL_FAMILY_ID: u16 = 1;
const CONTROL_FAMILY_NAME: u16 = 2;

/// Command, version and two bytes that are reserved.
const HEADER_BYTES: usize = 4;

/// A connection.
#[derive(Debug)]
pub(super) struct Generic {
    handle: ConnectionHandle<Message>,
    connection: JoinHandle<()>,
}

/// A family, whose number is looked up once.
#[derive(Debug)]
pub(super) struct Family {
    name: &'static str,
    id: OnceCell<Option<u16>>,
}

/// Any message of any family.
#[derive(Clone, Debug)]
struct Message {
    family: u16,
    command: u8,
    attributes: Vec<u8>,
}

impl Drop for Generic {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Family {
    pub(super) const fn new(name: &'static str) -> Self {
        Self { name, id: OnceCell::const_new() }
    }
}

impl Generic {
    /// Connects in the network namespace of this thread.
    pub(super) fn connect() -> Result<Self, DataplaneError> {
        let (connection, handle, _) = new_connection(NETLINK_GENERIC)
            .map_err(|source| DataplaneError::Io { what: "connecting to generic netlink".into(), source })?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// The attributes of the kernel's answer; `None`: it has no such family, or refuses, and so doesn't tell.
    pub(super) async fn ask(
        &self,
        family: &Family,
        command: u8,
        attributes: Vec<u8>,
    ) -> Result<Option<Vec<u8>>, DataplaneError> {
        let find = async || {
            let name = attribute(CONTROL_FAMILY_NAME, &[family.name.as_bytes(), &[0]].concat());
            let answer = self.exchange(CONTROL, CONTROL_GET_FAMILY, name).await?;
            let id = answer.as_deref().and_then(|attributes| find(attributes, CONTROL_FAMILY_ID));
            Ok::<_, DataplaneError>(id.and_then(|id| id.try_into().ok()).map(u16::from_ne_bytes))
        };
        match *family.id.get_or_try_init(find).await? {
            Some(id) => self.exchange(id, command, attributes).await,
            None => Ok(None),
        }
    }

    async fn exchange(
        &self,
        family: u16,
        command: u8,
        attributes: Vec<u8>,
    ) -> Result<Option<Vec<u8>>, DataplaneError> {
        let message = Message { family, command, attributes };
        let mut request =
            NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(message));
        request.header.flags = NLM_F_REQUEST;
        request.finalize();
        let kernel = SocketAddr::new(0, 0);
        let lost = || DataplaneError::Io {
            what: "asking over generic netlink".into(),
            source: io::ErrorKind::NotConnected.into(),
        };
        let mut answers = self.handle.request(request, kernel).map_err(|_| lost())?;
        let answer = timeout(ANSWER, answers.next()).await.ok().flatten();
        match answer.ok_or_else(lost)?.payload {
            NetlinkPayload::InnerMessage(answer) => Ok(Some(answer.attributes)),
            _ => Ok(None),
        }
    }
}

/// An attribute with this value, padded.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(HEADER_BYTES + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// All attributes, by kind; what follows a damaged one is left out.
pub(super) fn each(attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(attributes).map_while(Result::ok).map(|found| (found.kind(), value(found.into_inner())))
}

/// The value of the first attribute of this kind.
pub(super) fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    each(attributes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// An attribute's bytes from its header on, without the header and what comes behind it.
fn value(attribute: &[u8]) -> &[u8] {
    let length = attribute.first_chunk().map_or(0, |length| u16::from_ne_bytes(*length));
    attribute.get(HEADER_BYTES..length.into()).unwrap_or_default()
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        HEADER_BYTES + self.attributes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer[..HEADER_BYTES].copy_from_slice(&[self.command, 1, 0, 0]);
        buffer[HEADER_BYTES..].copy_from_slice(&self.attributes);
    }
}

impl NetlinkDeserializable for Message {
    type Error = io::Error;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, io::Error> {
        let ([command, ..], attributes) =
            payload.split_first_chunk::<HEADER_BYTES>().ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Self { family: header.message_type, command: *command, attributes: attributes.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_found() {
        let bytes = [attribute(1, &[7]), attribute(2, b"abcde"), attribute(3, &[])].concat();
        assert_eq!(bytes.len(), 8 + 12 + 4);
        assert_eq!(find(&bytes, 1), Some(&[7][..]));
        assert_eq!(find(&bytes, 2), Some(&b"abcde"[..]));
        assert_eq!(find(&bytes, 3), Some(&[][..]));
        assert_eq!(find(&bytes, 4), None);
    }

    #[test]
    fn a_damaged_attribute_ends_the_search() {
        for damaged in [&[0, 0, 1, 0][..], &[3, 0, 1, 0], &[9, 0, 1, 0, 0], &[8]] {
            assert_eq!(find(damaged, 1), None, "{damaged:?}");
        }
    }
}
