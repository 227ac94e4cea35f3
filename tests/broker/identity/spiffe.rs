//! Every rule of a SPIFFE ID.

use super::*;

#[test]
fn every_rule_of_a_spiffe_id() {
    let world = World::new();
    let (verifier, broker) = (world.verifier(None), world.broker(None));
    let check = |id: &[u8], expected: Outcome| {
        let shown = world.shop.leaf(|params| {
            drop_san(params);
            params.custom_extensions = vec![raw_uri(id)];
        });
        check(
            &verifier,
            &broker,
            &id.escape_ascii().to_string(),
            &shown,
            &expected,
        );
    };
    check(WEB.as_bytes(), Session("web"));
    check(b"SPIFFE://shop.example/web", Refused("spiffe-scheme"));
    check(b"Spiffe://shop.example/web", Refused("spiffe-scheme"));
    check(b"https://shop.example/web", Refused("spiffe-scheme"));
    check(b"spiffe:/shop.example/web", Refused("spiffe-scheme"));
    check(b"spiffe:shop.example/web", Refused("spiffe-scheme"));
    check(b"", Refused("spiffe-scheme"));
    check(b" spiffe://shop.example/web", Refused("spiffe-scheme"));
    check(b"spiffe://Shop.example/web", Refused("spiffe-trust-domain"));
    check(b"spiffe://shop.example./web", Refused("trust-domain"));
    check(b"spiffe://shop.EXAMPLE/web", Refused("spiffe-trust-domain"));
    check(b"spiffe:///web", Refused("spiffe-trust-domain"));
    check(b"spiffe://shop.example\0/web", Refused("spiffe-trust-domain"));
    check(
        b"spiffe://shop.example\0.other.example/web",
        Refused("spiffe-trust-domain"),
    );
    check(
        "spiffe://sh\u{f6}p.example/web".as_bytes(),
        Refused("spiffe-trust-domain"),
    );
    check(b"spiffe://\xffshop.example/web", Refused("spiffe-trust-domain"));
    check(
        b"spiffe://shop.example%2fx/web",
        Refused("spiffe-percent-encoding"),
    );
    check(b"spiffe://shop.example/we%62", Refused("spiffe-percent-encoding"));
    check(b"spiffe://shop.example/a%2fb", Refused("spiffe-percent-encoding"));
    check(b"spiffe://shop.example/../web", Refused("spiffe-dot-segment"));
    check(b"spiffe://shop.example/./web", Refused("spiffe-dot-segment"));
    check(
        b"spiffe://shop.example/orders/../web",
        Refused("spiffe-dot-segment"),
    );
    check(b"spiffe://shop.example/.", Refused("spiffe-dot-segment"));
    check(b"spiffe://shop.example//web", Refused("spiffe-empty-segment"));
    check(b"spiffe://shop.example/web/", Refused("spiffe-trailing-slash"));
    check(b"spiffe://shop.example/", Refused("spiffe-trailing-slash"));
    check(b"spiffe://shop.example:8443/web", Refused("spiffe-port"));
    check(b"spiffe://shop.example:/web", Refused("spiffe-port"));
    check(b"spiffe://me@shop.example/web", Refused("spiffe-user"));
    check(b"spiffe://me:pw@shop.example/web", Refused("spiffe-user"));
    check(b"spiffe://shop.example@other.example/web", Refused("spiffe-user"));
    check(b"spiffe://shop.example/web?x=1", Refused("spiffe-query"));
    check(b"spiffe://shop.example/web?", Refused("spiffe-query"));
    check(b"spiffe://shop.example/web#x", Refused("spiffe-fragment"));
    check(b"spiffe://shop.example#/web", Refused("spiffe-fragment"));
    check(b"spiffe://shop.example/web\0", Refused("spiffe-path"));
    check(b"spiffe://shop.example/web\0admin", Refused("spiffe-path"));
    check(b"spiffe://shop.example/we b", Refused("spiffe-path"));
    check(b"spiffe://shop.example/web\n", Refused("spiffe-path"));
    check(b"spiffe://shop.example/\x1b[31mweb", Refused("spiffe-path"));
    check(
        "spiffe://shop.example/w\u{e9}b".as_bytes(),
        Refused("spiffe-path"),
    );
    check(
        "spiffe://shop.example/\u{ff57}eb".as_bytes(),
        Refused("spiffe-path"),
    );
    check(b"spiffe://shop.example/web\\orders", Refused("spiffe-path"));
    check(b"spiffe://shop.example", Refused("spiffe-role"));
    check(b"spiffe://shop.example/operator", Refused("spiffe-role"));
    check(b"spiffe://shop.example/a/b", Refused("spiffe-role"));
    check(b"spiffe://shop.example/a/b/c", Refused("spiffe-role"));
    check(b"spiffe://shop.example/operator/alice/x", Refused("spiffe-role"));
    check(b"spiffe://shop.example/Operator/alice", Refused("spiffe-role"));
    check(b"spiffe://shop.example/we.b", Refused("spiffe-name"));
    check(b"spiffe://shop.example/operator/al.ice", Refused("spiffe-name"));
    check(
        format!("spiffe://shop.example/{}", "a".repeat(64)).as_bytes(),
        Refused("spiffe-name"),
    );
    check(b"spiffe://other.example/web", Refused("trust-domain"));
    check(b"spiffe://shop.example.evil/web", Refused("trust-domain"));
    check(b"spiffe://xshop.example/web", Refused("trust-domain"));
    let long = |bytes: usize| {
        let start = "spiffe://shop.example/";
        format!("{start}{}", "a".repeat(bytes - start.len()))
    };
    check(long(2_048).as_bytes(), Refused("spiffe-name"));
    check(long(2_049).as_bytes(), Refused("spiffe-length"));
    check(long(40_000).as_bytes(), Refused("spiffe-length"));
    let domain = format!("spiffe://{}/web", "a".repeat(256));
    check(domain.as_bytes(), Refused("spiffe-trust-domain"));
    // Names that are good, and not in the policy; none is taken for another.
    check(
        b"spiffe://shop.example/Web",
        NotAdmitted("spiffe://shop.example/Web", "unknown-service"),
    );
    check(
        b"spiffe://shop.example/WEB",
        NotAdmitted("spiffe://shop.example/WEB", "unknown-service"),
    );
    check(
        b"spiffe://shop.example/web-",
        NotAdmitted("spiffe://shop.example/web-", "unknown-service"),
    );
    check(
        b"spiffe://shop.example/alice",
        NotAdmitted("spiffe://shop.example/alice", "unknown-service"),
    );
    check(
        b"spiffe://shop.example/operator/alice",
        NotAdmitted("spiffe://shop.example/operator/alice", "not-a-service"),
    );
    check(
        b"spiffe://shop.example/operator/web",
        NotAdmitted("spiffe://shop.example/operator/web", "not-a-service"),
    );
}
