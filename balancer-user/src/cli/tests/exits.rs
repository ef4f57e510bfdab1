//! What the program exits with, and says.

use super::*;

#[test]
fn each_cause_has_its_exit_code() {
    let socket = PathBuf::from("/run/balancer/control.sock");
    let source = io::Error::from(io::ErrorKind::NotFound);
    let cases = [
        (ClientError::NoDaemon { socket: socket.clone(), source }, 4),
        (ClientError::Permission { socket: socket.clone() }, 5),
        (ClientError::Forbidden("uid 7".to_owned()), 5),
        (ClientError::Refused("server2 is down".to_owned()), 1),
        (ClientError::Late { socket: socket.clone(), limit: Duration::from_secs(5), unknown: "" }, 1),
        (ClientError::Dropped, 1),
        (ClientError::Version { what: "is new".to_owned() }, 1),
        (ClientError::Broken { socket, what: "broke off".to_owned() }, 1),
    ];
    for (error, code) in cases {
        let said = error.to_string();
        let failure = Failure::from(error);
        assert_eq!(failure.exit as u8, code, "{said}");
        assert_eq!(failure.to_string(), said);
    }
}

#[test]
fn what_a_daemon_says_cannot_steer_the_terminal() {
    let failure = Failure::from(ClientError::Refused("\x1b[2Jgone".to_owned()));
    assert_eq!(failure.to_string(), "refused: \\u{1b}[2Jgone");
}
