//! SCRAM-SHA-256 (RFC 5802, 7677), the server's side, and the other password forms.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest as _, Md5};
use rand::RngCore as _;
use sha2::{Digest as _, Sha256};

/// Rounds of a new verifier, PostgreSQL's default.
const ITERATIONS: u32 = 4096;

/// A stored SCRAM verifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

/// `SCRAM-SHA-256$4096:salt$StoredKey:ServerKey` for a new password.
pub fn scram_verifier(password: &str) -> String {
    postgres_protocol::password::scram_sha_256(password.as_bytes())
}

/// `md5` and the hash of password and user name.
pub(super) fn md5_verifier(password: &str, user: &str) -> String {
    format!("md5{}", hex(&Md5::digest([password.as_bytes(), user.as_bytes()].concat())))
}

/// What a client must answer to an MD5 request over a stored `md5...`.
pub(super) fn md5_response(stored: &str, salt: [u8; 4]) -> String {
    let inner = stored.strip_prefix("md5").unwrap_or(stored);
    format!("md5{}", hex(&Md5::digest([inner.as_bytes(), &salt[..]].concat())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Compares without telling by time where they differ.
pub(super) fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0_u8, |d, (x, y)| d | (x ^ y)) == 0
}

impl Verifier {
    /// Parses a stored verifier.
    pub(super) fn parse(stored: &str) -> Option<Self> {
        let rest = stored.strip_prefix("SCRAM-SHA-256$")?;
        let (first, keys) = rest.split_once('$')?;
        let (iterations, salt) = first.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        Some(Self {
            iterations: iterations.parse().ok().filter(|n| *n > 0)?,
            salt: BASE64.decode(salt).ok()?,
            stored_key: BASE64.decode(stored_key).ok()?.try_into().ok()?,
            server_key: BASE64.decode(server_key).ok()?.try_into().ok()?,
        })
    }

    /// A verifier no password fits, the same for a user each time, so that an exchange does not tell whether the user exists.
    pub(super) fn mock(user: &str, secret: &[u8]) -> Self {
        let salt = Sha256::digest([user.as_bytes(), secret].concat());
        Self { iterations: ITERATIONS, salt: salt[..16].to_vec(), stored_key: [0; 32], server_key: [0; 32] }
    }

    /// Whether `password` is the one.
    pub(super) fn fits(&self, password: &str) -> bool {
        let prepared = password.to_owned();
        let salted = pbkdf2(prepared.as_bytes(), &self.salt, self.iterations);
        let client_key = hmac(&salted, b"Client Key");
        let stored: [u8; 32] = Sha256::digest(client_key).into();
        equal(&stored, &self.stored_key)
    }
}

/// Why an exchange failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ScramError {
    /// The message is not what the protocol asks for here.
    Malformed(&'static str),
    /// The proof does not fit.
    WrongPassword,
}

/// One exchange after the client's first message.
#[derive(Debug)]
pub(super) struct Exchange {
    verifier: Verifier,
    client_first_bare: String,
    gs2_header: String,
    server_first: String,
    nonce: String,
}

impl Exchange {
    /// Reads the client's first message; returns the exchange and the server's first message.
    pub(super) fn begin(verifier: Verifier, client_first: &[u8]) -> Result<(Self, String), ScramError> {
        let mut nonce = [0_u8; 18];
        rand::rng().fill_bytes(&mut nonce);
        Self::begin_with(verifier, client_first, &BASE64.encode(nonce))
    }

    fn begin_with(verifier: Verifier, client_first: &[u8], own_nonce: &str) -> Result<(Self, String), ScramError> {
        let text = std::str::from_utf8(client_first).map_err(|_| ScramError::Malformed("malformed SCRAM message"))?;
        let bare_at = match text.as_bytes() {
            [b'n' | b'y', b',', rest @ ..] => {
                let comma = rest.iter().position(|b| *b == b',').ok_or(ScramError::Malformed("malformed SCRAM message"))?;
                if comma != 0 {
                    return Err(ScramError::Malformed("client uses authorization identity, but it is not supported"));
                }
                3
            }
            [b'p', ..] => {
                return Err(ScramError::Malformed(
                    "client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data",
                ));
            }
            _ => return Err(ScramError::Malformed("malformed SCRAM message")),
        };
        let bare = &text[bare_at..];
        let mut client_nonce = None;
        for (i, part) in bare.split(',').enumerate() {
            match (i, part.split_once('=')) {
                (0, Some(("n", _))) => {}
                (1, Some(("r", n))) if !n.is_empty() && n.bytes().all(|b| (0x21..=0x7e).contains(&b)) => client_nonce = Some(n),
                (0, Some(("m", _))) => return Err(ScramError::Malformed("client requires an unsupported SCRAM extension")),
                (0 | 1, _) => return Err(ScramError::Malformed("malformed SCRAM message")),
                _ => {}
            }
        }
        let client_nonce = client_nonce.ok_or(ScramError::Malformed("malformed SCRAM message"))?;
        let nonce = format!("{client_nonce}{own_nonce}");
        let server_first = format!("r={nonce},s={},i={}", BASE64.encode(&verifier.salt), verifier.iterations);
        let exchange = Self {
            verifier,
            client_first_bare: bare.to_owned(),
            gs2_header: text[..bare_at].to_owned(),
            server_first: server_first.clone(),
            nonce,
        };
        Ok((exchange, server_first))
    }

    /// Checks the client's final message; returns the server's final message.
    pub(super) fn finish(self, client_final: &[u8]) -> Result<String, ScramError> {
        let malformed = ScramError::Malformed("malformed SCRAM message");
        let Ok(text) = std::str::from_utf8(client_final) else { return Err(malformed) };
        let Some((without_proof, proof)) = text.rsplit_once(",p=") else { return Err(malformed) };
        let mut parts = without_proof.split(',');
        if parts.next().and_then(|c| c.strip_prefix("c=")) != Some(&BASE64.encode(&self.gs2_header)) {
            return Err(ScramError::Malformed("unexpected SCRAM channel-binding attribute in client-final-message"));
        }
        if parts.next().and_then(|r| r.strip_prefix("r=")) != Some(&self.nonce) {
            return Err(ScramError::Malformed("invalid SCRAM response"));
        }
        let Some(proof) = BASE64.decode(proof).ok().and_then(|p| <[u8; 32]>::try_from(p).ok()) else { return Err(malformed) };
        let message = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let signature = hmac(&self.verifier.stored_key, message.as_bytes());
        let mut client_key = proof;
        for (k, s) in client_key.iter_mut().zip(signature) {
            *k ^= s;
        }
        let stored: [u8; 32] = Sha256::digest(client_key).into();
        if !equal(&stored, &self.verifier.stored_key) {
            return Err(ScramError::WrongPassword);
        }
        Ok(format!("v={}", BASE64.encode(hmac(&self.verifier.server_key, message.as_bytes()))))
    }
}

/// RFC 2104 over SHA-256.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0_u8; 64];
    if key.len() > 64 {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::digest([&block.map(|b| b ^ 0x36)[..], message].concat());
    Sha256::digest([&block.map(|b| b ^ 0x5c)[..], &inner[..]].concat()).into()
}

/// RFC 2898, one block.
fn pbkdf2(password: &[u8], salt: &[u8], iterations: u32) -> [u8; 32] {
    let mut last = hmac(password, &[salt, &1_u32.to_be_bytes()].concat());
    let mut out = last;
    for _ in 1..iterations {
        last = hmac(password, &last);
        for (o, l) in out.iter_mut().zip(last) {
            *o ^= l;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exchange_with_the_client_of_postgres_protocol_succeeds() {
        use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
        assert_eq!(SCRAM_SHA_256, "SCRAM-SHA-256");
        for (given, works) in [("secret", true), ("wrong", false)] {
            let verifier = Verifier::parse(&scram_verifier("secret")).unwrap();
            let mut client = ScramSha256::new(given.as_bytes(), ChannelBinding::unsupported());
            let (exchange, first) = Exchange::begin(verifier, client.message()).unwrap();
            client.update(first.as_bytes()).unwrap();
            match exchange.finish(client.message()) {
                Ok(last) => {
                    assert!(works);
                    client.finish(last.as_bytes()).unwrap();
                }
                Err(e) => assert!(!works && e == ScramError::WrongPassword, "{e:?}"),
            }
        }
    }

    #[test]
    fn plain_passwords_are_checked_against_verifiers() {
        let verifier = Verifier::parse(&scram_verifier("secret")).unwrap();
        assert!(verifier.fits("secret") && !verifier.fits("Secret"));
    }

    #[test]
    fn md5_is_what_libpq_computes() {
        assert_eq!(
            md5_response(&md5_verifier("password", "user"), [1, 2, 3, 4]),
            postgres_protocol::authentication::md5_hash(b"user", b"password", [1, 2, 3, 4])
        );
    }
}
