//! A connected byte stream: TCP, or TLS over TCP.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::resolve;
use super::target::{Endpoint, Scheme};
use crate::{clock, descriptors};

/// A connection that is being made, with how long that took.
pub type Connecting = Pin<Box<dyn Future<Output = io::Result<(Stream, Duration)>>>>;

/// A connected byte stream to a provider.
pub enum Stream {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS, boxed because its state is large and most pools hold plain streams.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Connects to an endpoint, TLS handshake included, and tells how long that took. The caller bounds the time.
    pub async fn connect(endpoint: &Endpoint) -> io::Result<(Self, Duration)> {
        let began = clock::now();
        let stream = Self::open(endpoint).await?;
        Ok((stream, clock::now() - began))
    }

    async fn open(endpoint: &Endpoint) -> io::Result<Self> {
        let tcp = resolve::connect(&endpoint.host, endpoint.port).await?;
        tcp.set_nodelay(true)?;
        descriptors::watch_provider(&tcp)?;
        match endpoint.scheme {
            Scheme::Http => Ok(Self::Plain(tcp)),
            Scheme::Https => {
                let name = ServerName::try_from(endpoint.host.clone()).map_err(|_| {
                    io::Error::new(io::ErrorKind::InvalidInput, "host is not a name that TLS can verify")
                })?;
                let tls = TlsConnector::from(tls_config()).connect(name, tcp).await?;
                Ok(Self::Tls(Box::new(tls)))
            }
        }
    }
}

/// Certificates are verified against the bundled roots of the web; there is no switch to turn that off. Made on first
/// use: a gateway in front of plain engines never pays for it.
fn tls_config() -> Arc<rustls::ClientConfig> {
    static CONFIG: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();
    Arc::clone(CONFIG.get_or_init(|| {
        let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("invariant: ring supports the default TLS versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config)
    }))
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
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
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
