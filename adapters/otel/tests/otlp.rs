//! What a collector is told, decoded as it comes over the wire.

#![allow(missing_docs, reason = "a test is read, not called")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, global};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_sdk::trace::SdkTracerProvider;
use prost::Message;
use qudo::{Job, JobError, JobResult, Manager};
use qudo_otel::{Traced, Traces};

/// A collector that keeps what it is sent.
struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
}

/// One request of HTTP: its path and its body.
fn read(stream: &TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim().to_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or_default();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((first.split(' ').nth(1).unwrap_or_default().to_owned(), body))
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("is bound");
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let kept = Arc::clone(&spans);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("connects");
                let (path, body) = read(&stream).expect("is a request");
                assert_eq!(path, "/v1/traces");
                let request = ExportTraceServiceRequest::decode(&*body).expect("is of OTLP");
                let scopes = request.resource_spans.into_iter().flat_map(|one| one.scope_spans);
                kept.lock().expect("no panic").extend(scopes.flat_map(|scope| scope.spans));
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                stream.write_all(answer).expect("answers");
            }
        });
        Self { address, spans }
    }

    fn named(&self, name: &str) -> Vec<Span> {
        let spans = self.spans.lock().expect("no panic");
        spans.iter().filter(|span| span.name == name).cloned().collect()
    }
}

/// The least that sends a request.
#[derive(Debug)]
struct Sender;

#[async_trait::async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let address = request.uri().authority().expect("has one").to_string();
        let mut stream = TcpStream::connect(address)?;
        let (path, body) = (request.uri().path(), request.body());
        let head = format!("POST {path} HTTP/1.1\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Ok(Response::new(Bytes::new()))
    }
}

#[qudo::ability(max_retries = 1, retry_delay = "0s")]
fn mail(job: &Job, to: String) -> JobResult {
    let tracer = global::tracer_provider().tracer("the application");
    tracer.in_span("connect", |_| {});
    if job.attempt() == 1 {
        return Err(JobError::fail("the relay is busy"));
    }
    if to == "all" {
        job.replace(report::job());
    }
    Ok(())
}

#[qudo::ability]
fn report(_job: &Job) -> JobResult {
    Ok(())
}

fn attribute(span: &Span, name: &str) -> String {
    let found = span.attributes.iter().find(|one| one.key == name);
    let value = found.and_then(|one| one.value.clone()).and_then(|value| value.value);
    match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

#[test]
fn each_run_is_a_span_linked_to_its_enqueue() {
    let collector = Collector::start();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Sender)
        .with_endpoint(format!("http://{}/v1/traces", collector.address))
        .with_timeout(Duration::from_secs(10))
        .build()
        .expect("valid");
    let provider = SdkTracerProvider::builder().with_simple_exporter(exporter).build();
    global::set_tracer_provider(provider.clone());

    let place = tempfile::tempdir().expect("a temporary directory");
    let manager = Manager::builder()
        .linked(false)
        .database(format!("sqlite:{}", place.path().join("jobs.db").display()))
        .ability::<mail>()
        .ability::<report>()
        .hook(Traces::default())
        .build()
        .expect("valid");
    manager.migrate().expect("migrates");
    let tracer = provider.tracer("the application");
    let id = tracer.in_span("request", |_| {
        manager.enqueue(mail::job("all".to_owned())).expect("stored").id().expect("new")
    });
    // Without a trace there is nothing to link to.
    manager.enqueue(report::job()).expect("stored");
    while manager.work_once().expect("works").is_some() {}
    provider.force_flush().expect("sends");

    let [request] = &collector.named("request")[..] else { panic!("one request") };
    let runs = collector.named("process mail");
    assert_eq!(runs.len(), 2, "each attempt");
    for (run, attempt) in runs.iter().zip(["1", "2"]) {
        assert_eq!(run.kind, SpanKind::Consumer as i32);
        assert!(run.parent_span_id.is_empty(), "the root of its own trace");
        assert_ne!(run.trace_id, request.trace_id);
        let [link] = &run.links[..] else { panic!("one link: {run:?}") };
        assert_eq!((&link.trace_id, &link.span_id), (&request.trace_id, &request.span_id));
        let names = ["messaging.system", "messaging.operation.type", "messaging.destination.name"];
        assert_eq!(names.map(|name| attribute(run, name)), ["qudo", "process", "default"]);
        assert_eq!(attribute(run, "messaging.message.id"), id.to_string());
        assert_eq!(attribute(run, "qudo.ability"), "mail");
        assert_eq!(attribute(run, "qudo.attempt"), attempt);
    }
    let failed = runs[0].status.clone().expect("has one");
    assert_eq!((failed.code, &*failed.message), (StatusCode::Error as i32, "the relay is busy"));
    assert_eq!(attribute(&runs[0], "qudo.outcome"), "retried");
    assert_eq!(attribute(&runs[1], "qudo.outcome"), "replaced");
    // What the ability does lies inside.
    let inside: Vec<_> =
        collector.named("connect").iter().map(|span| span.parent_span_id.clone()).collect();
    assert_eq!(inside, [runs[0].span_id.clone(), runs[1].span_id.clone()]);
    // The replacement was enqueued by the second run.
    let reports = collector.named("process report");
    let links: Vec<_> = reports.iter().map(|run| run.links.len()).collect();
    assert_eq!(links.iter().sum::<usize>(), 1, "{links:?}");
    let linked = reports.iter().find_map(|run| run.links.first()).expect("there is one");
    assert_eq!(linked.span_id, runs[1].span_id);

    // A hook that is called in another thread does not see the caller's context.
    let (job, context) = tracer.in_span("task", |context: Context| {
        (report::job().traced(), context.span().span_context().clone())
    });
    let carried = job.metadata().get("traceparent").and_then(|one| one.as_str()).expect("has one");
    assert_eq!(carried, format!("00-{}-{}-01", context.trace_id(), context.span_id()));
}
