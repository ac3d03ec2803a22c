//! An archive in an S3-compatible bucket: `s3://bucket/prefix?endpoint=http://host:port&region=eu-central-1`.
//!
//! Credentials come from where S3's tools look (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, a role of the machine) or from a file in AWS's format that the
//! location names (`credentials=/path`), never from the setting itself, which views show.
//! An object appears as a whole or not at all; that it replaces none is asked of the store in the same request.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path as Key;
use object_store::{Error, ObjectStore, PutMode, PutOptions, PutPayload, RetryConfig, WriteMultipart};

use super::{LocationError, failed};

/// Files up to this size go in one request, which creates or refuses.
const ONE_REQUEST_BYTES: u64 = 64 << 20;
/// How long a request is tried again; after that the archiver or recovery does.
const RETRY_FOR: Duration = Duration::from_secs(5);

/// A bucket and what stands before each name in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    name: String,
    prefix: String,
    /// File with the credentials.
    credentials: Option<PathBuf>,
    /// Options of the store, by its names.
    options: Vec<(AmazonS3ConfigKey, String)>,
}

impl Bucket {
    /// Reads what follows `s3://`.
    pub(super) fn parse(text: &str) -> Result<Self, LocationError> {
        let invalid = || LocationError::Invalid(format!("s3://{text}"));
        let (place, query) = text.split_once('?').map_or((text, ""), |(place, query)| (place, query));
        let (name, prefix) = place.split_once('/').unwrap_or((place, ""));
        if name.is_empty() {
            return Err(invalid());
        }
        let (mut options, mut credentials) = (Vec::new(), None);
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(invalid)?;
            if key == "credentials" {
                credentials = Some(PathBuf::from(value));
                continue;
            }
            let key = AmazonS3ConfigKey::from_str(key).map_err(|_| invalid())?;
            let is_secret = matches!(key, AmazonS3ConfigKey::AccessKeyId | AmazonS3ConfigKey::SecretAccessKey | AmazonS3ConfigKey::Token);
            if is_secret {
                return Err(LocationError::Secret);
            }
            options.push((key, value.to_owned()));
        }
        Ok(Self { name: name.to_owned(), prefix: prefix.trim_matches('/').to_owned(), credentials, options })
    }

    fn store(&self) -> Result<AmazonS3, LocationError> {
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(&self.name);
        for (key, value) in &self.options {
            // An endpoint without TLS was asked for by its name.
            let plain = *key == AmazonS3ConfigKey::Endpoint && value.starts_with("http://");
            builder = if plain { builder.with_allow_http(true) } else { builder }.with_config(*key, value);
        }
        if let Some(path) = &self.credentials {
            let text = fs::read_to_string(path).map_err(failed("read", path))?;
            for (key, value) in credentials_in(&text).ok_or_else(|| LocationError::Credentials(path.clone()))? {
                builder = builder.with_config(key, value);
            }
        }
        let retry = RetryConfig { retry_timeout: RETRY_FOR, ..RetryConfig::default() };
        builder.with_retry(retry).build().map_err(|e| self.failed("open", "", e))
    }

    fn failed(&self, what: &'static str, name: &str, source: Error) -> LocationError {
        LocationError::Store { what, name: format!("s3://{}/{}", self.name, self.key(name)), source: Box::new(source) }
    }

    fn key(&self, name: &str) -> Key {
        Key::from_iter([self.prefix.as_str(), name].into_iter().flat_map(|part| part.split('/')).filter(|part| !part.is_empty()))
    }

    /// As [`super::Location::put`].
    pub(super) fn put(&self, from: &Path, name: &str) -> Result<bool, LocationError> {
        let (store, key) = (self.store()?, self.key(name));
        let bytes = fs::metadata(from).map_err(failed("access", from))?.len();
        run(async {
            if bytes <= ONE_REQUEST_BYTES {
                let contents = PutPayload::from(fs::read(from).map_err(failed("read", from))?);
                match store.put_opts(&key, contents, PutOptions::from(PutMode::Create)).await {
                    Ok(_) => return Ok(true),
                    Err(Error::AlreadyExists { .. }) => return self.same_or_refuse(&store, from, name).await,
                    // A store that does not know conditional requests.
                    Err(Error::NotImplemented | Error::NotSupported { .. }) => {}
                    Err(e) => return Err(self.failed("put", name, e)),
                }
            }
            match store.head(&key).await {
                Ok(_) => return self.same_or_refuse(&store, from, name).await,
                Err(Error::NotFound { .. }) => {}
                Err(e) => return Err(self.failed("look at", name, e)),
            }
            let upload = store.put_multipart(&key).await.map_err(|e| self.failed("put", name, e))?;
            let mut upload = WriteMultipart::new_with_chunk_size(upload, 16 << 20);
            let mut file = fs::File::open(from).map_err(failed("open", from))?;
            let mut buf = vec![0; 1 << 20];
            loop {
                let n = std::io::Read::read(&mut file, &mut buf).map_err(failed("read", from))?;
                if n == 0 {
                    break;
                }
                upload.wait_for_capacity(4).await.map_err(|e| self.failed("put", name, e))?;
                upload.write(&buf[..n]);
            }
            upload.finish().await.map_err(|e| self.failed("put", name, e))?;
            Ok(true)
        })
    }

    async fn same_or_refuse(&self, store: &AmazonS3, from: &Path, name: &str) -> Result<bool, LocationError> {
        let found = store.get(&self.key(name)).await.map_err(|e| self.failed("get", name, e))?;
        let mut file = std::io::BufReader::new(fs::File::open(from).map_err(failed("open", from))?);
        let same_size = found.meta.size == fs::metadata(from).map_err(failed("access", from))?.len();
        let mut stream = found.into_stream();
        let mut ours = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|e| self.failed("get", name, e))?;
            ours.resize(chunk.len(), 0);
            if !same_size || std::io::Read::read_exact(&mut file, &mut ours).is_err() || ours != chunk {
                return Err(LocationError::Exists(name.to_owned()));
            }
        }
        if same_size { Ok(false) } else { Err(LocationError::Exists(name.to_owned())) }
    }

    /// As [`super::Location::get`].
    pub(super) fn get(&self, name: &str, into: &Path) -> Result<bool, LocationError> {
        let store = self.store()?;
        run(async {
            let found = match store.get(&self.key(name)).await {
                Ok(found) => found,
                Err(Error::NotFound { source, .. }) if !format!("{source:?}").contains("NoSuchBucket") => return Ok(false),
                Err(e) => return Err(self.failed("get", name, e)),
            };
            let made = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(into);
            let mut file = made.map_err(failed("create", into))?;
            let mut stream = found.into_stream();
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.map_err(|e| self.failed("get", name, e))?;
                file.write_all(&chunk).map_err(failed("write", into))?;
            }
            file.sync_all().map_err(failed("fsync", into))?;
            Ok(true)
        })
    }

    /// As [`super::Location::list`].
    pub(super) fn list(&self) -> Result<Vec<String>, LocationError> {
        let (store, prefix) = (self.store()?, self.key(""));
        run(async {
            let found = store.list_with_delimiter(Some(&prefix)).await.map_err(|e| self.failed("list", "", e))?;
            let mut names: Vec<String> = found.objects.iter().filter_map(|object| object.location.filename().map(str::to_owned)).collect();
            names.sort();
            Ok(names)
        })
    }

    /// Removes one.
    pub(super) fn remove(&self, name: &str) -> Result<(), LocationError> {
        let store = self.store()?;
        run(async { store.delete(&self.key(name)).await.map_err(|e| self.failed("remove", name, e)) })
    }
}

/// Key, secret and token of the section `default`, or of the lines before any section.
fn credentials_in(text: &str) -> Option<Vec<(AmazonS3ConfigKey, String)>> {
    let (mut ours, mut found) = (true, Vec::new());
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            ours = line == "[default]";
        } else if let Some((key, value)) = line.split_once('=').filter(|_| ours) {
            let key = match key.trim() {
                "aws_access_key_id" => AmazonS3ConfigKey::AccessKeyId,
                "aws_secret_access_key" => AmazonS3ConfigKey::SecretAccessKey,
                "aws_session_token" => AmazonS3ConfigKey::Token,
                _ => continue,
            };
            found.push((key, value.trim().to_owned()));
        }
    }
    let has = |wanted| found.iter().any(|(key, _)| *key == wanted);
    (has(AmazonS3ConfigKey::AccessKeyId) && has(AmazonS3ConfigKey::SecretAccessKey)).then_some(found)
}

fn run<T>(work: impl Future<Output = Result<T, LocationError>>) -> Result<T, LocationError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(failed("start", Path::new("runtime")))?.block_on(work)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_secrets_refused() {
        let bucket = Bucket::parse("wal/a/b?endpoint=http://127.0.0.1:5000&region=eu-central-1").unwrap();
        assert_eq!((bucket.name.as_str(), bucket.options.len()), ("wal", 2));
        assert_eq!(bucket.key("00000002.history").to_string(), "a/b/00000002.history");
        assert_eq!(Bucket::parse("wal").unwrap().key("x").to_string(), "x");
        assert!(matches!(Bucket::parse("wal?secret_access_key=x"), Err(LocationError::Secret)));
        assert_eq!(Bucket::parse("wal?credentials=/etc/aws").unwrap().credentials, Some(PathBuf::from("/etc/aws")));
        let text = "# ours\n[other]\naws_access_key_id=no\n[default]\naws_access_key_id = us\naws_secret_access_key= a=b\n";
        let expected = [(AmazonS3ConfigKey::AccessKeyId, "us".to_owned()), (AmazonS3ConfigKey::SecretAccessKey, "a=b".to_owned())];
        assert_eq!(credentials_in(text).unwrap(), expected);
        assert!(credentials_in("aws_access_key_id = us").is_none() && credentials_in("").is_none());
        assert!(matches!(Bucket::parse("wal?colour=x"), Err(LocationError::Invalid(_))));
        assert!(matches!(Bucket::parse("/x"), Err(LocationError::Invalid(_))));
    }
}
