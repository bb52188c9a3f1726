//! A connected byte stream: TCP, or TLS over TCP.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::target::{Endpoint, Scheme};
use super::{grpc, resolve};
use crate::{clock, descriptors};

/// A connection that is being made, with how long that took.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<(Stream, Duration)>>>>;

/// A connected byte stream to a provider.
pub enum Stream {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS, boxed because its state is large and most pools hold plain streams.
    Tls(Box<TlsStream<TcpStream>>),
    /// A pipe to what speaks gRPC.
    Grpc(DuplexStream),
}

impl Stream {
    /// Connects to an endpoint, TLS handshake included, and tells how long that took. The caller bounds the time.
    pub async fn connect(endpoint: &Endpoint) -> io::Result<(Self, Duration)> {
        let began = clock::now();
        let stream = Self::open(endpoint).await?;
        Ok((stream, clock::now() - began))
    }

    async fn open(endpoint: &Endpoint) -> io::Result<Self> {
        Self::open_with(endpoint, tls_config).await
    }

    async fn open_with(
        endpoint: &Endpoint,
        tls_config: impl FnOnce() -> Arc<rustls::ClientConfig>,
    ) -> io::Result<Self> {
        let tcp = resolve::connect(endpoint, endpoint.port).await?;
        tcp.set_nodelay(true)?;
        descriptors::watch_provider(&tcp)?;
        match endpoint.scheme {
            Scheme::Http => Ok(Self::Plain(tcp)),
            Scheme::Https => Ok(Self::Tls(Box::new(secure(endpoint, tcp, tls_config()).await?))),
            Scheme::Grpc => Ok(Self::Grpc(grpc::pipe(tcp, &endpoint.authority).await?)),
            Scheme::Grpcs => {
                let mut config = (*tls_config()).clone();
                config.alpn_protocols = vec![b"h2".to_vec()];
                let tls = secure(endpoint, tcp, Arc::new(config)).await?;
                Ok(Self::Grpc(grpc::pipe(tls, &endpoint.authority).await?))
            }
        }
    }
}

async fn secure(
    endpoint: &Endpoint,
    tcp: TcpStream,
    config: Arc<rustls::ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(endpoint.host.clone())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "host is not a name that TLS can verify"))?;
    TlsConnector::from(config).connect(name, tcp).await
}

/// Certificates are verified against the bundled roots of the web; there is no switch to turn that off. Made on first
/// use: a gateway in front of plain engines never pays for it.
fn tls_config() -> Arc<rustls::ClientConfig> {
    static CONFIG: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();
    Arc::clone(CONFIG.get_or_init(|| {
        config_with(rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
    }))
}

fn config_with(roots: rustls::RootCertStore) -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("invariant: ring supports the default TLS versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::Grpc(pipe) => Pin::new(pipe).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
            Self::Grpc(pipe) => Pin::new(pipe).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
            Self::Grpc(pipe) => Pin::new(pipe).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Self::Grpc(pipe) => Pin::new(pipe).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Grpc(pipe) => Pin::new(pipe).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use pointsman_settings::egress::EgressConfig;
    use pointsman_settings::providers::ProviderConfig;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::upstream::target;

    /// Made by `openssl`, see `fixtures/README.md`.
    const AUTHORITY: &[u8] = include_bytes!("fixtures/authority.pem");
    const KEY: &[u8] = include_bytes!("fixtures/key.pem");
    const GOOD: &[u8] = include_bytes!("fixtures/good.pem");
    const EXPIRED: &[u8] = include_bytes!("fixtures/expired.pem");
    const OTHER_NAME: &[u8] = include_bytes!("fixtures/other-name.pem");

    fn certificate(pem: &[u8]) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem).expect("a certificate")
    }

    /// What comes of a connection to a server with this certificate, by a client that trusts this authority.
    async fn connect(pem: &[u8], authority: Option<&[u8]>) -> Result<(), String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate(pem)], PrivateKeyDer::from_pem_slice(KEY).expect("a key"))
            .expect("they belong together");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let port = listener.local_addr().expect("bound").port();
        let serving = async {
            let (tcp, _) = listener.accept().await.expect("it connects");
            drop(TlsAcceptor::from(Arc::new(server)).accept(tcp).await);
        };
        let base_url = Some(format!("https://localhost:{port}"));
        let endpoint = target::endpoint(
            "p",
            &ProviderConfig { base_url, ..ProviderConfig::default() },
            &EgressConfig::default(),
        );
        let mut roots = rustls::RootCertStore::empty();
        if let Some(authority) = authority {
            roots.add(certificate(authority)).expect("a root");
        }
        let ((), connected) = tokio::join!(serving, Stream::open_with(&endpoint, || config_with(roots)));
        connected.map(drop).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn n5_certificates_that_are_not_good_are_refused_and_named() {
        assert_eq!(connect(GOOD, Some(AUTHORITY)).await, Ok(()));
        for (pem, authority, why) in [
            (EXPIRED, Some(AUTHORITY), "expired"),
            (OTHER_NAME, Some(AUTHORITY), "not valid for name \"localhost\""),
            (GOOD, None, "UnknownIssuer"),
        ] {
            let error = connect(pem, authority).await.expect_err(why);
            assert!(error.contains(why), "{why}: {error}");
        }
    }
}
