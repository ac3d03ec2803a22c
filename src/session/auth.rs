//! Asking a client to prove who it is.

use std::io;

use rand::RngCore as _;

use super::hba::Method;
use super::scram::{Exchange, ScramError, Verifier, equal, md5_response, md5_verifier};
use super::stream::{Connection, ReadError};
use crate::sqlstate::{SqlError, SqlState};
use crate::wire::Frontend;
use crate::wire::frontend::MAX_AUTH_BYTES;

const OK: i32 = 0;
const CLEARTEXT: i32 = 3;
const MD5: i32 = 5;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;
const MECHANISM: &str = "SCRAM-SHA-256";

/// Why a login failed.
#[derive(Debug)]
pub(super) enum AuthError {
    /// To tell the client; the second text is for the log only.
    Refused(SqlError, Option<String>),
    /// The client is gone.
    Gone,
}

impl From<io::Error> for AuthError {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<ReadError> for AuthError {
    fn from(e: ReadError) -> Self {
        match e {
            ReadError::Closed => Self::Gone,
            ReadError::Wire(w) => Self::Refused(SqlError::from(w).fatal(), None),
        }
    }
}

fn refused(method: &str, user: &str, log_detail: Option<String>) -> AuthError {
    let text = match method {
        "password" => format!("password authentication failed for user \"{user}\""),
        other => format!("{other} authentication failed for user \"{user}\""),
    };
    let state = if method == "password" { SqlState::INVALID_PASSWORD } else { SqlState::INVALID_AUTHORIZATION_SPECIFICATION };
    AuthError::Refused(SqlError::new(state, text).fatal(), log_detail)
}

fn violation(text: &str) -> AuthError {
    AuthError::Refused(SqlError::new(SqlState::PROTOCOL_VIOLATION, text).fatal(), None)
}

/// Runs the exchange of a password method. `stored` is the role's verifier, `None` for no password or no such role. `secret` makes the
/// exchange with an unknown role look like one with a known role.
pub(super) async fn password(
    conn: &mut Connection,
    method: Method,
    user: &str,
    stored: Option<&str>,
    secret: &[u8],
) -> Result<(), AuthError> {
    let is_md5 = stored.is_some_and(|s| s.starts_with("md5"));
    let result = match method {
        Method::Password => cleartext(conn, user, stored).await,
        Method::Md5 if is_md5 => md5(conn, user, stored).await,
        Method::Md5 | Method::Scram => scram(conn, user, stored, secret).await,
        Method::Trust | Method::Reject | Method::Peer => Ok(()),
    };
    result?;
    conn.out.authentication(OK, &[]);
    Ok(())
}

async fn answer(conn: &mut Connection) -> Result<bytes::Bytes, AuthError> {
    conn.flush().await?;
    if let Frontend::Password(bytes) = conn.next(MAX_AUTH_BYTES).await? { Ok(bytes) } else { Err(violation("expected password response")) }
}

fn text_answer(bytes: &[u8]) -> Result<&str, AuthError> {
    let text = bytes.strip_suffix(&[0]).ok_or_else(|| violation("invalid password packet size"))?;
    std::str::from_utf8(text).map_err(|_| violation("invalid password packet"))
}

async fn cleartext(conn: &mut Connection, user: &str, stored: Option<&str>) -> Result<(), AuthError> {
    conn.out.authentication(CLEARTEXT, &[]);
    let bytes = answer(conn).await?;
    let given = text_answer(&bytes)?;
    if given.is_empty() {
        return Err(AuthError::Refused(SqlError::new(SqlState::INVALID_PASSWORD, "empty password returned by client").fatal(), None));
    }
    let fits = match stored {
        Some(s) if s.starts_with("md5") => equal(md5_verifier(given, user).as_bytes(), s.as_bytes()),
        Some(s) => Verifier::parse(s).is_some_and(|v| v.fits(given)),
        None => false,
    };
    if fits { Ok(()) } else { Err(refused("password", user, missing(user, stored))) }
}

async fn md5(conn: &mut Connection, user: &str, stored: Option<&str>) -> Result<(), AuthError> {
    let mut salt = [0_u8; 4];
    rand::rng().fill_bytes(&mut salt);
    conn.out.authentication(MD5, &salt);
    let bytes = answer(conn).await?;
    let given = text_answer(&bytes)?;
    let fits = stored.is_some_and(|s| equal(md5_response(s, salt).as_bytes(), given.as_bytes()));
    if fits { Ok(()) } else { Err(refused("password", user, missing(user, stored))) }
}

async fn scram(conn: &mut Connection, user: &str, stored: Option<&str>, secret: &[u8]) -> Result<(), AuthError> {
    let known = stored.and_then(Verifier::parse);
    let doomed = known.is_none();
    let verifier = known.unwrap_or_else(|| Verifier::mock(user, secret));
    conn.out.authentication(SASL, format!("{MECHANISM}\0\0").as_bytes());
    let first = answer(conn).await?;
    // Mechanism name, then the length and bytes of the initial response.
    let end = first.iter().position(|b| *b == 0).ok_or_else(|| violation("malformed SCRAM message"))?;
    if &first[..end] != MECHANISM.as_bytes() {
        return Err(violation("client selected an invalid SASL authentication mechanism"));
    }
    let body = first.get(end + 5..).ok_or_else(|| violation("malformed SCRAM message"))?;
    let fail = |e: ScramError| match e {
        ScramError::Malformed(text) => violation(text),
        ScramError::WrongPassword => refused("password", user, missing(user, stored)),
    };
    let (exchange, server_first) = Exchange::begin(verifier, body).map_err(fail)?;
    conn.out.authentication(SASL_CONTINUE, server_first.as_bytes());
    let last = answer(conn).await?;
    let server_final = exchange.finish(&last).map_err(fail)?;
    if doomed {
        return Err(refused("password", user, missing(user, stored)));
    }
    conn.out.authentication(SASL_FINAL, server_final.as_bytes());
    Ok(())
}

fn missing(user: &str, stored: Option<&str>) -> Option<String> {
    match stored {
        None => Some(format!("Role \"{user}\" does not exist or has no password assigned.")),
        Some(_) => None,
    }
}

/// Trust and peer: nothing is asked.
pub(super) fn accept(conn: &mut Connection) {
    conn.out.authentication(OK, &[]);
}

/// Peer authentication failed.
pub(super) fn peer_refused(user: &str, detail: String) -> AuthError {
    let error = SqlError::new(SqlState::INVALID_AUTHORIZATION_SPECIFICATION, format!("Peer authentication failed for user \"{user}\""));
    AuthError::Refused(error.fatal(), Some(detail))
}
