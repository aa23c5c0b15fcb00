// What a browser is sent to, and what it says of what it could do there.
//
//   node browser.js service PORT           a page, a WebSocket that echoes, an event stream
//   node browser.js elsewhere PORT URL     a page of somebody else that tries all of that at URL
//
// Each page posts what it found to /said, which is printed as one line.
"use strict";
const http = require("http");
const { WebSocketServer } = require("ws");

const [role, port, url] = process.argv.slice(2);
const target = role === "service" ? "" : url;

// Runs in the browser.
function page(base) {
  const at = base || location.origin;
  const socket = () => new Promise((done) => {
    const ws = new WebSocket(at.replace("http", "ws") + "/socket");
    const big = "x".repeat(300000);
    ws.onopen = () => ws.send("hello");
    ws.onmessage = (event) => {
      if (event.data === "hello") ws.send(big);
      else if (event.data === big) ws.close(1000, "enough");
      else done("socket: odd answer");
    };
    ws.onclose = (event) => done(event.wasClean && event.code === 1000 ? "socket: ok" : "socket: refused");
  });
  const events = () => new Promise((done) => {
    const source = new EventSource(at + "/events");
    const heard = [];
    source.onmessage = (event) => {
      heard.push(event.data);
      if (heard.length === 3) { source.close(); done("events: " + heard.join(",")); }
    };
    source.onerror = () => { source.close(); done("events: refused"); };
  });
  const post = () => fetch(at + "/post", { method: "POST", mode: "no-cors", body: "x" }).then(
    (response) => (response.ok ? "post: ok" : "post: " + response.type), () => "post: refused");
  Promise.all([socket(), events(), post()]).then((all) =>
    fetch("/said", { method: "POST", body: all.join("; ") }));
}

const server = http.createServer((request, response) => {
  if (request.url === "/events") {
    response.writeHead(200, { "content-type": "text/event-stream", "access-control-allow-origin": "*" });
    // One at a time, each when the one before has gone: what is held back on the way would stop it.
    [1, 2, 3].reduce((before, n) => before.then(() => new Promise((sent) =>
      setTimeout(() => response.write("data: " + n + "\n\n", sent), 20))), Promise.resolve());
  } else if (request.url === "/said" || request.url === "/post") {
    let text = "";
    request.on("data", (data) => { text += data; });
    request.on("end", () => { console.log(request.url.slice(1), text); response.end(); });
  } else {
    response.setHeader("content-type", "text/html");
    response.end("<!doctype html><title>page</title><script>(" + page + ")(" + JSON.stringify(target) + ")</script>");
  }
});
const sockets = new WebSocketServer({ server, path: "/socket" });
sockets.on("connection", (ws) => {
  console.log("socket opened");
  ws.on("message", (data, binary) => ws.send(data, { binary }));
});
server.listen(Number(port), "127.0.0.1", () => console.log("listening"));
