//! `go.micro.auth`, and `auth` of micro v3: what programs need of accounts to start and to be called.
//!
//! Nothing in this network is decided by these accounts: who may use a listener is decided by the owner
//! of the program, what a node may do by its grant, what becomes of calls by rules. But micro v3 services
//! end at once where they are given no account and token, and ask whose token a caller has. So an
//! account is whatever a program says of itself, a token says it again, marked by this node, and the one
//! rule there is lets everybody call everything.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use parking_lot::Mutex;
use proto::micro::auth as pb;
use serde::{Deserialize, Serialize};

use super::dispatch::{Call, decode};
use super::failure::{Failure, Kind};
use super::reply::Reply;

pub(super) const NAME: &str = "go.micro.auth";

/// Accounts remembered; the oldest go first. One that is forgotten is taken for what it says.
const MAX_ACCOUNTS: usize = 4096;
/// Bytes of all that is said of one account.
const MAX_ACCOUNT: usize = 16 * 1024;
/// How long a token lasts that is asked for without a time: what v2 itself has.
const USUAL: Duration = Duration::from_secs(15 * 60);
/// The longest a token lasts.
const LONGEST: i64 = 366 * 24 * 3600;
/// How long a refresh token lasts.
const REFRESH: i64 = LONGEST;
/// What v2 and v3 call a token that is none.
const INVALID: &str = "invalid token provided";
/// What stands first in a token: programs look whether it has three parts, as JSON Web Tokens do.
const HEADER: &str = r#"{"alg":"BLAKE3","typ":"JWT"}"#;

/// The service, all its structs.
pub(super) struct Auth {
    key: [u8; 32],
    accounts: Mutex<Accounts>,
}

#[derive(Default)]
struct Accounts {
    by_id: BTreeMap<String, pb::Account>,
    order: VecDeque<String>,
}

/// What a token says.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    #[serde(rename = "type")]
    kind: String,
    scopes: Vec<String>,
    metadata: BTreeMap<String, String>,
    iss: String,
    name: String,
    /// Unix seconds.
    exp: i64,
    /// Only to get another token with.
    refresh: bool,
}

impl Auth {
    /// `key` marks the tokens: those marked with another are not believed.
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self { key, accounts: Mutex::default() }
    }

    pub(super) fn call(&self, structure: &str, call: &Call, message: Bytes) -> Reply {
        let namespace = call.scope.namespace();
        match (structure, call.method.as_str()) {
            ("Auth", "Generate") => {
                Reply::now(decode(NAME, message).and_then(|ask| self.generate(ask, namespace)))
            }
            ("Auth", "Token") => {
                Reply::now(decode(NAME, message).and_then(|ask| self.token(&ask, namespace)))
            }
            ("Auth", "Inspect") => {
                Reply::now(decode(NAME, message).and_then(|ask: pb::InspectRequest| {
                    let claims = self.read(&ask.token).filter(|claims| !claims.refresh);
                    let claims = claims.ok_or_else(|| bad(INVALID))?;
                    Ok(pb::InspectResponse { account: Some(claims.into()) })
                }))
            }
            ("Accounts", "List") => {
                let known = self.accounts.lock();
                let shown =
                    |one: &pb::Account| pb::Account { secret: String::new(), ..one.clone() };
                let accounts = known.by_id.values().map(shown).collect();
                Reply::now(Ok(pb::ListAccountsResponse { accounts }))
            }
            ("Rules", "List") => Reply::now(Ok(pb::ListResponse { rules: vec![everybody()] })),
            _ => {
                let why = "who may call is not decided by accounts here; see micro rules";
                let failure = Failure::new(NAME, Kind::NotImplemented, why);
                Reply::now::<pb::CreateResponse>(Err(failure))
            }
        }
    }

    fn generate(
        &self,
        ask: pb::GenerateRequest,
        namespace: &str,
    ) -> Result<pb::GenerateResponse, Failure> {
        if ask.id.is_empty() {
            return Err(bad("an account needs an id"));
        }
        let (options, given) = (ask.options.unwrap_or_default(), ask.secret);
        let fresh = || data_encoding::HEXLOWER.encode(&tunnel::identity::random::<16>());
        let account = pb::Account {
            id: ask.id,
            r#type: ask.r#type,
            metadata: ask.metadata,
            scopes: ask.scopes,
            issuer: issuer(&options.namespace, namespace),
            secret: if given.is_empty() { fresh() } else { given },
            name: ask.name,
        };
        if prost::Message::encoded_len(&account) > MAX_ACCOUNT {
            return Err(bad("too much is said of the account"));
        }
        self.accounts.lock().keep(account.clone());
        Ok(pb::GenerateResponse { account: Some(account) })
    }

    fn token(&self, ask: &pb::TokenRequest, namespace: &str) -> Result<pb::TokenResponse, Failure> {
        let asked = ask.options.as_ref().map_or("", |options| &options.namespace);
        let account = if ask.refresh_token.is_empty() {
            self.known(&ask.id, &ask.secret, issuer(asked, namespace))?
        } else {
            let claims = self.read(&ask.refresh_token).filter(|claims| claims.refresh);
            claims.ok_or_else(|| bad(INVALID))?.into()
        };
        let now = unix_now();
        let seconds = match ask.token_expiry {
            seconds if seconds > 0 => seconds.min(LONGEST),
            _ => i64::try_from(USUAL.as_secs()).unwrap_or(LONGEST),
        };
        let expiry = now + seconds;
        let access_token = self.write(&Claims::of(&account, expiry, false));
        let refresh_token = self.write(&Claims::of(&account, now + REFRESH, true));
        let token = pb::Token { access_token, refresh_token, created: now, expiry };
        Ok(pb::TokenResponse { token: Some(token) })
    }

    /// The account of an id. One that was not made here, or is forgotten, is a service's, made
    /// elsewhere: its secret is not known and cannot be wrong.
    fn known(&self, id: &str, secret: &str, issuer: String) -> Result<pb::Account, Failure> {
        if id.is_empty() || secret.is_empty() || id.len() + secret.len() > MAX_ACCOUNT {
            return Err(bad("a token needs an id and its secret, or a refresh token"));
        }
        match self.accounts.lock().by_id.get(id) {
            Some(account) if account.secret == secret => Ok(account.clone()),
            Some(_) => {
                Err(Failure::new(NAME, Kind::Unauthorized, "not the secret of this account"))
            }
            None => Ok(pb::Account {
                id: id.to_owned(),
                r#type: "service".to_owned(),
                scopes: vec!["service".to_owned()],
                issuer,
                ..Default::default()
            }),
        }
    }

    /// `header.claims.mark`, each without the characters that URLs have other uses for.
    fn write(&self, claims: &Claims) -> String {
        let claims = serde_json::to_vec(claims).expect("texts and maps of texts are JSON");
        let mut token = BASE64URL_NOPAD.encode(HEADER.as_bytes());
        token.push('.');
        token.push_str(&BASE64URL_NOPAD.encode(&claims));
        let mark = blake3::keyed_hash(&self.key, token.as_bytes());
        token.push('.');
        token.push_str(&BASE64URL_NOPAD.encode(mark.as_bytes()));
        token
    }

    /// What a token says, if this node marked it and its time is not over.
    fn read(&self, token: &str) -> Option<Claims> {
        if token.len() > 4 * MAX_ACCOUNT {
            return None;
        }
        let (said, mark) = token.rsplit_once('.')?;
        let mark = BASE64URL_NOPAD.decode(mark.as_bytes()).ok()?;
        let mark = blake3::Hash::from_slice(&mark).ok()?;
        // Compared in a time that tells nothing.
        if blake3::keyed_hash(&self.key, said.as_bytes()) != mark {
            return None;
        }
        let (_, claims) = said.split_once('.')?;
        let claims = BASE64URL_NOPAD.decode(claims.as_bytes()).ok()?;
        let claims: Claims = serde_json::from_slice(&claims).ok()?;
        (claims.exp > unix_now()).then_some(claims)
    }
}

impl Accounts {
    fn keep(&mut self, account: pb::Account) {
        let id = account.id.clone();
        if self.by_id.insert(id.clone(), account).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > MAX_ACCOUNTS {
            if let Some(oldest) = self.order.pop_front() {
                self.by_id.remove(&oldest);
            }
        }
    }
}

impl Claims {
    fn of(account: &pb::Account, exp: i64, refresh: bool) -> Self {
        Self {
            sub: account.id.clone(),
            kind: account.r#type.clone(),
            scopes: account.scopes.clone(),
            metadata: account.metadata.clone(),
            iss: account.issuer.clone(),
            name: account.name.clone(),
            exp,
            refresh,
        }
    }
}

impl From<Claims> for pb::Account {
    fn from(claims: Claims) -> Self {
        Self {
            id: claims.sub,
            r#type: claims.kind,
            metadata: claims.metadata,
            scopes: claims.scopes,
            issuer: claims.iss,
            secret: String::new(),
            name: claims.name,
        }
    }
}

/// The rule by which programs let everybody call: what else holds is decided before a call reaches them.
fn everybody() -> pb::Rule {
    let any = || "*".to_owned();
    pb::Rule {
        id: "default".to_owned(),
        scope: String::new(),
        resource: Some(pb::Resource { name: any(), r#type: any(), endpoint: any() }),
        access: pb::Access::Granted.into(),
        priority: 0,
    }
}

fn issuer(asked: &str, namespace: &str) -> String {
    match (asked, namespace) {
        ("", proto::name::DEFAULT_NAMESPACE) => "micro".to_owned(),
        ("", namespace) => namespace.to_owned(),
        (asked, _) => asked.to_owned(),
    }
}

fn bad(why: &str) -> Failure {
    Failure::new(NAME, Kind::BadRequest, why)
}

fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth() -> Auth {
        Auth::new([7; 32])
    }

    fn generate(auth: &Auth, id: &str) -> pb::Account {
        let ask = pb::GenerateRequest {
            id: id.into(),
            r#type: "service".into(),
            scopes: vec!["a".into()],
            ..Default::default()
        };
        auth.generate(ask, proto::name::DEFAULT_NAMESPACE).unwrap().account.unwrap()
    }

    fn token(auth: &Auth, id: &str, secret: &str) -> Result<pb::Token, Failure> {
        let ask = pb::TokenRequest { id: id.into(), secret: secret.into(), ..Default::default() };
        Ok(auth.token(&ask, "pay")?.token.unwrap())
    }

    #[test]
    fn a_program_gets_an_account_a_token_and_another_and_is_known_by_it() {
        let auth = auth();
        let account = generate(&auth, "greeter-1");
        assert_eq!(account.issuer, "micro");
        let first = token(&auth, "greeter-1", &account.secret).unwrap();
        assert_eq!(first.access_token.matches('.').count(), 2, "v3 takes no other for a token");
        let ask = pb::TokenRequest { refresh_token: first.refresh_token, ..Default::default() };
        let second = auth.token(&ask, "x").unwrap().token.unwrap();
        let claims = auth.read(&second.access_token).unwrap();
        assert_eq!((claims.sub.as_str(), claims.scopes), ("greeter-1", vec!["a".to_owned()]));
        assert!(second.expiry - second.created >= 600);
        let refused = token(&auth, "greeter-1", "guessed").unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    }

    #[test]
    fn an_account_made_elsewhere_is_taken_for_a_service() {
        let auth = auth();
        let token = token(&auth, "made-by-hand", "secret").unwrap();
        let claims = auth.read(&token.access_token).unwrap();
        assert_eq!((claims.kind.as_str(), claims.iss.as_str()), ("service", "pay"));
    }

    #[test]
    fn what_this_node_did_not_mark_is_no_token() {
        let auth = auth();
        let token = token(&auth, "a", "b").unwrap().access_token;
        assert!(Auth::new([8; 32]).read(&token).is_none());
        let (said, mark) = token.rsplit_once('.').unwrap();
        for bad in ["", "..", "a.b.c", said, mark, &format!("{said}x.{mark}"), &format!(".{mark}")]
        {
            assert!(auth.read(bad).is_none(), "{bad}");
        }
        assert!(auth.read(&"x".repeat(1 << 20)).is_none());
    }

    #[test]
    fn accounts_are_bounded_and_the_oldest_go() {
        let auth = auth();
        for n in 0..MAX_ACCOUNTS + 10 {
            generate(&auth, &n.to_string());
        }
        let accounts = auth.accounts.lock();
        assert_eq!(accounts.by_id.len(), MAX_ACCOUNTS);
        assert!(!accounts.by_id.contains_key("0") && accounts.by_id.contains_key("10"));
    }
}
