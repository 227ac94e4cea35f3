//! Revocation lists: what of a list tells whether it may take the place of another.
//!
//! That a list is signed by its issuer webpki checks, each time that it asks the list; of a root's list it is checked
//! here too, since a forged one would cut everybody off. And an older one is kept from replacing a newer one: who could put last month's list in its place would undo what was revoked since.

use rustls::pki_types::CertificateRevocationListDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::{
    OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_ISSUER_DISTRIBUTION_POINT,
};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::{Expiry, TlsConfigError};

/// What is known of one list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ListHead {
    /// Whose it is, for people; escaped.
    issuer: String,
    /// The issuer's name and key, and the part of its certificates that the list is about: two lists of the same replace
    /// each other.
    about: Vec<Vec<u8>>,
    /// The CRL number, big-endian without leading zeros (RFC 5280, section 5.2.3).
    number: Option<Vec<u8>>,
    this_update_unix_s: i64,
    next_update_unix_s: Option<i64>,
    der: Vec<u8>,
}

impl ListHead {
    /// Reads a list; `number` is its place in the configuration, from 1.
    pub(super) fn read(
        der: &CertificateRevocationListDer<'_>,
        number: usize,
    ) -> Result<Self, TlsConfigError> {
        let Ok((_, list)) = CertificateRevocationList::from_der(der) else {
            let fault = "it is not a DER certificate revocation list".to_owned();
            return Err(TlsConfigError::Crl { number, fault });
        };
        let extension = |oid| {
            let found = list.extensions().iter().find(|extension| extension.oid == oid);
            found
                .map(|extension| extension.value.to_vec())
                .unwrap_or_default()
        };
        let is_number = |extension: &&x509_parser::extensions::X509Extension<'_>| {
            matches!(extension.parsed_extension(), ParsedExtension::CRLNumber(_))
        };
        Ok(Self {
            issuer: list.issuer().to_string().escape_default().to_string(),
            about: vec![
                list.issuer().as_raw().to_vec(),
                extension(OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER),
                extension(OID_X509_EXT_ISSUER_DISTRIBUTION_POINT),
            ],
            number: list
                .extensions()
                .iter()
                .find(is_number)
                .and(list.crl_number())
                .map(|number| number.to_bytes_be()),
            this_update_unix_s: list.last_update().timestamp(),
            next_update_unix_s: list.next_update().map(|moment| moment.timestamp()),
            der: der.to_vec(),
        })
    }

    /// Whether it is signed by the root whose name it has, if it has the name of one. A list of an intermediate is judged
    /// when that intermediate is shown.
    pub(super) fn check_signed<'a>(
        &self,
        number: usize,
        roots: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), TlsConfigError> {
        let Ok((_, list)) = CertificateRevocationList::from_der(&self.der) else {
            return Ok(());
        };
        let mut namesakes = roots
            .filter_map(|root| X509Certificate::from_der(root).ok())
            .filter(|(_, root)| root.subject().as_raw() == list.issuer().as_raw())
            .peekable();
        if namesakes.peek().is_none()
            || namesakes.any(|(_, root)| list.verify_signature(root.public_key()).is_ok())
        {
            return Ok(());
        }
        let fault = format!(
            "it has the name of the root {}, and not its signature",
            self.issuer
        );
        Err(TlsConfigError::Crl { number, fault })
    }

    /// When it expires.
    pub(super) fn expiry(&self) -> Option<Expiry> {
        let unix_s = self.next_update_unix_s?;
        Some(Expiry {
            kind: "revocation-lists",
            what: format!("the revocation list of {}", self.issuer),
            unix_s,
            life_s: unix_s.saturating_sub(self.this_update_unix_s),
        })
    }

    /// Whether this list may come after `held`, which is about the same.
    fn may_follow(&self, held: &Self) -> Result<(), String> {
        let shown = |number: &Option<Vec<u8>>| match number {
            Some(number) => format!(
                "number 0x{}",
                number
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect::<String>()
            ),
            None => "no number".to_owned(),
        };
        let order = |list: &Self| {
            let number = list.number.clone().unwrap_or_default();
            (number.len(), number, list.this_update_unix_s)
        };
        if order(self) < order(held) {
            return Err(format!(
                "the list of {} is older than the one that is held ({} of {}, not {} of {}); publish a new one",
                self.issuer,
                shown(&self.number),
                self.this_update_unix_s,
                shown(&held.number),
                held.this_update_unix_s
            ));
        }
        Ok(())
    }
}

/// Whether lists may take the place of those that are held: none that is new has expired, and none is older.
pub(super) fn may_follow(new: &[ListHead], held: &[ListHead], now_unix_s: i64) -> Result<(), TlsConfigError> {
    for (number, list) in (1..).zip(new) {
        if held.iter().any(|held| held.der == list.der) {
            continue;
        }
        if let Some(next) = list.next_update_unix_s.filter(|next| *next < now_unix_s) {
            let fault = format!(
                "the list of {} expired at {next}, it is {now_unix_s} (seconds since 1970); publish a new one",
                list.issuer
            );
            return Err(TlsConfigError::Crl { number, fault });
        }
        let same = held.iter().filter(|held| held.about == list.about);
        for held in same {
            list.may_follow(held)
                .map_err(|fault| TlsConfigError::Crl { number, fault })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, CertificateRevocationListParams, CrlDistributionPoint,
        CrlIssuingDistributionPoint, CrlScope, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
    };
    use time::{Duration, OffsetDateTime};

    use super::*;

    struct Ca(Issuer<'static, KeyPair>);

    fn ca(name: &str) -> Ca {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
        Ca(Issuer::new(params, KeyPair::generate().unwrap()))
    }

    impl Ca {
        fn list(&self, number: u64, age_min: i64, left_min: i64, point: Option<&str>) -> ListHead {
            let now = OffsetDateTime::now_utc();
            let params = CertificateRevocationListParams {
                this_update: now - Duration::minutes(age_min),
                next_update: now + Duration::minutes(left_min),
                crl_number: SerialNumber::from(number),
                issuing_distribution_point: point.map(|uri| CrlIssuingDistributionPoint {
                    distribution_point: CrlDistributionPoint {
                        uris: vec![uri.to_owned()],
                    },
                    scope: Some(CrlScope::UserCertsOnly),
                }),
                revoked_certs: Vec::new(),
                key_identifier_method: rcgen::KeyIdMethod::Sha256,
            };
            ListHead::read(params.signed_by(&self.0).unwrap().der(), 1).unwrap()
        }
    }

    #[test]
    fn a_list_is_followed_by_none_that_is_older_or_has_expired() {
        let (one, other) = (ca("one"), ca("other"));
        let held = [
            one.list(300, 60, 60, None),
            one.list(7, 60, 60, Some("http://a/1.crl")),
        ];
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let check = |new: ListHead, fault: Option<&str>| {
            let came = may_follow(&[new], &held, now).map_err(|error| error.to_string());
            match fault {
                None => assert_eq!(came, Ok(())),
                Some(words) => assert!(came.as_ref().is_err_and(|came| came.contains(words)), "{came:?}"),
            }
        };
        check(one.list(301, 0, 60, None), None);
        check(one.list(300, 0, 60, None), None);
        check(one.list(299, 0, 60, None), Some("number 0x012b"));
        check(one.list(300, 61, 60, None), Some("older"));
        check(one.list(255, 0, 60, None), Some("older"));
        check(one.list(301, 60, -1, None), Some("expired at"));
        check(held[0].clone(), None);
        // Of another part of the issuer's certificates, or of another issuer.
        check(one.list(8, 0, 60, Some("http://a/1.crl")), None);
        check(one.list(6, 0, 60, Some("http://a/1.crl")), Some("older"));
        check(one.list(1, 0, 60, Some("http://a/2.crl")), None);
        check(other.list(1, 0, 60, None), None);
        // One that has expired stays where it is; it lets nobody in.
        let expired = [one.list(300, 60, -30, None)];
        assert!(may_follow(&expired, &expired, now).is_ok());
    }
}
