// The peers in Node: `node server.mjs ws|socket.io CLIENTS EVENTS PER_S PYTHON`. What pace.py does, in the same words.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import net from "node:net";
import { Server } from "socket.io";
import { WebSocketServer } from "ws";

const [name, clients, events, perSecond, python] = [
  process.argv[2], Number(process.argv[3]), Number(process.argv[4]), Number(process.argv[5]), process.argv[6],
];
const BURST = 16;
const BURSTS = 60;
const BURSTS_IN_FLIGHT = 4;
const DATA = { id: "main/release-digest", version: 7, digest: "sha256:" + "5f".repeat(32), mark: "\u00a7" };
const EVENT = {
  jsonrpc: "2.0",
  method: "event",
  params: {
    id: "621cc924-2-3106cefd", prev: "621cc924-1-d235e4b0", topic: "skills", kind: "skill.published",
    at: "2026-11-21T07:35:52.123Z", data: DATA,
  },
};
const TEXT = JSON.stringify(EVENT);

const http = createServer();
let publish;
if (name === "ws") {
  const server = new WebSocketServer({ server: http, path: "/ws", perMessageDeflate: false });
  publish = () => server.clients.forEach((client) => client.send(TEXT));
} else {
  const server = new Server(http, { perMessageDeflate: false });
  publish = () => server.emit("event", EVENT);
}

const pss = () => Number(/Pss:\s+(\d+)/.exec(readFileSync("/proc/self/smaps_rollup", "utf8"))[1]);
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const cpu = () => process.cpuUsage().user + process.cpuUsage().system;

let count = 0;
let connected = false;
let told = () => {};
const control = net.createServer((socket) => {
  socket.on("error", () => {});
  socket.on("data", (data) => {
    for (const byte of data) byte === 0x2b ? (connected = true) : count++;
    told();
  });
});
const until = async (is) => {
  while (!is()) await new Promise((done) => (told = done));
};

http.listen(0, "127.0.0.1", () => control.listen(0, "127.0.0.1", run));

async function run() {
  await pause(200);
  const before = pss();
  const words = ["-m", "tests.bench.push.load", http.address().port, control.address().port, clients];
  const load = spawn(python, [...words, name === "ws" ? "websocket" : "socket.io"].map(String), { stdio: "ignore" });
  await until(() => connected);
  await pause(500);
  const after = pss();
  publish();
  await until(() => count >= 1);
  const started = performance.now();
  const lasts = [];
  let cost = cpu();
  for (let number = 0; number < events; number++) {
    await pause(Math.max(0, started + (number / perSecond) * 1000 - performance.now()));
    const sent = performance.now();
    publish();
    await until(() => count >= number + 2);
    lasts.push(performance.now() - sent);
  }
  cost = cpu() - cost;
  const base = count;
  const burstStarted = performance.now();
  let burstCost = cpu();
  for (let number = 0; number < BURSTS; number++) {
    for (let each = 0; each < BURST; each++) publish();
    await until(() => count >= base + (number + 1 - BURSTS_IN_FLIGHT) * BURST);
  }
  await until(() => count >= base + BURSTS * BURST);
  burstCost = cpu() - burstCost;
  const seconds = (performance.now() - burstStarted) / 1000;
  load.kill("SIGKILL");
  lasts.sort((a, b) => a - b);
  console.log(JSON.stringify({
    us: cost / (events * clients), last_ms: lasts[lasts.length >> 1], last_ms_max: lasts.at(-1),
    burst_per_s: (BURSTS * BURST * clients) / seconds, burst_us: burstCost / (BURSTS * BURST * clients),
    kib: (after - before) / clients,
  }));
  process.exit(0);
}
