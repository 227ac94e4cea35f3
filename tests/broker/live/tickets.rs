//! Tickets of TLS sessions: whoever has one skips the proof of who they are. The broker gives none; these come from a
//! sibling, a server with the very same certificate and key that does. They buy nothing, before and after the end of
//! what they prove.

use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, HandshakeKind, RootCertStore, ServerConfig};

use super::*;

/// A server with the broker's certificate that gives tickets for as many connections as are made to it.
fn sibling(shop: &Shop) -> SocketAddr {
    let mut roots = RootCertStore::empty();
    roots.add(shop.ca.cert.clone()).expect("a root");
    let provider = exocom::net::tls::provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let mut tls = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("TLS 1.3")
        .with_client_cert_verifier(verifier.build().expect("a root"))
        .with_single_cert(
            exocom::net::tls::read_certificates(&shop.broker.cert("server.pem")).expect("a certificate"),
            exocom::net::tls::read_private_key(&shop.broker.cert("server.key")).expect("a key"),
        )
        .expect("they belong together");
    tls.ticketer = rustls::crypto::ring::Ticketer::new().expect("a ticketer");
    let tls = Arc::new(tls);
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = port.local_addr().expect("an address");
    std::thread::spawn(move || {
        for socket in port.incoming() {
            let mut socket = socket.expect("a socket");
            let mut server = rustls::ServerConnection::new(Arc::clone(&tls)).expect("a server");
            let mut stream = rustls::Stream::new(&mut server, &mut socket);
            let hello = std::io::Write::write_all(&mut stream, b"INFO {}\r\n");
            // Those who are done with it hang up.
            drop(hello.and_then(|()| std::io::Read::read(&mut stream, &mut [0; 64])));
        }
    });
    address
}

/// Connects, hears the first line, and says how the handshake went.
fn shake(address: SocketAddr, tls: &Arc<ClientConfig>) -> Option<HandshakeKind> {
    let mut raw = Raw::connect(address, tls).ok()?;
    raw.try_line().ok()??;
    raw.tls().handshake_kind()
}

/// A client whose tickets are for both servers alike, since both have one name.
fn client(shop: &Shop, shown: &Shown) -> Arc<ClientConfig> {
    Arc::new(tls_showing(&shop.broker.cert("ca.pem"), shown))
}

/// Gets a ticket from the sibling, and shows it to the broker: how that goes. A client uses a ticket once.
fn offer(sibling: SocketAddr, broker: SocketAddr, tls: &Arc<ClientConfig>) -> Option<HandshakeKind> {
    assert!(shake(sibling, tls).is_some());
    assert_eq!(
        shake(sibling, tls),
        Some(HandshakeKind::Resumed),
        "the tickets are good"
    );
    shake(broker, tls)
}

#[test]
fn a_ticket_from_elsewhere_proves_nothing() {
    let shop = Shop::open();
    let (sibling, broker) = (sibling(&shop), shop.broker.address());
    let web = client(&shop, &shop.issue("web"));
    let offer = |tls: &Arc<ClientConfig>| offer(sibling, broker, tls);
    assert_eq!(offer(&web), Some(HandshakeKind::Full));

    shop.succeeds(&["certs", "revoke", "web", "--reason", "a test"]);
    assert_eq!(offer(&web), None, "revoked");
    shop.succeeds(&["certs", "unrevoke", "web", "--reason", "a test"]);
    assert_eq!(offer(&web), Some(HandshakeKind::Full));

    let in_a_moment = exocom::net::clock::Clock::unix_s() + 4;
    let soon = shop.ca.leaf(|params| {
        params.subject_alt_names = vec![uri(&id("web"))];
        params.not_after = time::OffsetDateTime::from_unix_timestamp(in_a_moment).expect("a time");
    });
    let soon = client(&shop, &soon);
    assert_eq!(offer(&soon), Some(HandshakeKind::Full));
    // The sibling gives tickets for a whole connection: one is kept until after the end.
    assert!(shake(sibling, &soon).is_some());
    wait_for("the certificate to expire", || {
        exocom::net::clock::Clock::unix_s() > in_a_moment
    });
    assert_eq!(
        shake(sibling, &soon),
        Some(HandshakeKind::Resumed),
        "a server that gives tickets never looks again"
    );
    assert_eq!(shake(broker, &soon), None, "expired");

    shop.put_roots(&[&Ca::root("other")]);
    wait_for("the root to go", || offer(&web).is_none());
}
