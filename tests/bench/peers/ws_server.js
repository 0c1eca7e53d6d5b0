// The WebSocket library `ws` as a server that sends one broadcaster's audio to many listeners, speaking enough of
// relay.v1 to be measured as the relay is: node ws_server.js PORT
// biome-ignore lint/suspicious/noRedundantUseStrict: this is CommonJS
"use strict";

const { WebSocketServer } = require("ws");

const PROTOCOL = "relay.v1";
const FORMAT = { codec: "pcm_s16le", rate: 16000, channels: 1, clock_rate: 16000 };
const HEADER_BYTES = 16;

const sessions = new Map();

function sessionOf(path) {
  const name = path.split("?")[0].split("/")[3];
  if (!sessions.has(name)) sessions.set(name, { listeners: new Set(), seq: 0, mediaTime: 0 });
  return sessions.get(name);
}

function clockMs() {
  return Number((process.hrtime.bigint() / 1000000n) & 0xffffffffn);
}

function hello(session) {
  return JSON.stringify({
    type: "hello",
    protocol: PROTOCOL,
    connection_id: "ws",
    session: "ws",
    channel: "main",
    state: "live",
    format: FORMAT,
    epoch: 1,
    next_seq: session.seq,
    clock_ms: clockMs(),
    buffer_ms: 10000,
    resumed: false,
  });
}

function framed(session, audio) {
  const message = Buffer.allocUnsafe(HEADER_BYTES + audio.length);
  message.writeUInt8(1, 0);
  message.writeUInt8(0, 1);
  message.writeUInt16BE(1, 2);
  message.writeUInt32BE(session.seq, 4);
  message.writeUInt32BE(session.mediaTime, 8);
  message.writeUInt32BE(clockMs(), 12);
  audio.copy(message, HEADER_BYTES);
  session.seq += 1;
  session.mediaTime += audio.length / 2;
  return message;
}

function answer(socket, text) {
  const message = JSON.parse(text);
  if (message.type === "ping") socket.send(JSON.stringify({ ...message, type: "pong", clock_ms: clockMs() }));
  return message.type;
}

function listen(socket, session) {
  session.listeners.add(socket);
  socket.on("close", () => session.listeners.delete(socket));
  socket.on("message", (data, isBinary) => isBinary || answer(socket, data.toString()));
}

function broadcast(socket, session) {
  socket.on("message", (data, isBinary) => {
    if (isBinary) {
      const message = framed(session, data);
      for (const listener of session.listeners) listener.send(message);
    } else if (answer(socket, data.toString()) === "end") {
      for (const peer of [...session.listeners, socket]) peer.close(1000);
    }
  });
}

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.argv[2]),
  backlog: 4096,
  perMessageDeflate: false,
  handleProtocols: (offered) => offered.has(PROTOCOL) && PROTOCOL,
});

server.on("connection", (socket, request) => {
  const session = sessionOf(request.url);
  socket.send(hello(session));
  if (request.url.startsWith("/v1/broadcast/")) broadcast(socket, session);
  else listen(socket, session);
});
