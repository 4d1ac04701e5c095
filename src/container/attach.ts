import { BerthError, messageOf } from '../errors.ts';
import type { Services } from '../services.ts';
import type { Outcome, Session } from '../streaming/remote-command/session.ts';
import type { Attachment } from './attachments.ts';
import { containerState } from './record.ts';
import { live, runtimeOf } from './start.ts';

/** @throws BerthError `notFound`; `precondition` when the container has ended */
export function checkAttach(s: Services, id: string): void {
  // A created one too: who attaches before the start misses nothing.
  if (containerState(live(s, id)) === 'exited')
    throw new BerthError('precondition', 'the container is exited, not running');
}

/**
 * Attach: joins one client to the streams of a container until one of them leaves. Output is what comes from
 * now on; what was before is in the log.
 *
 * Input ends for the container only if its configuration says so (`stdin_once`): then with the end of the
 * first client's input or with its leaving.
 */
export async function attach(s: Services, id: string, session: Session): Promise<Outcome> {
  let attachment: Attachment;
  const container = s.containers.require(id);
  const { config } = container;
  const inputOnce = config.stdin && config.stdinOnce;
  try {
    checkAttach(s, id);
    const { stdout, stderr } = session;
    attachment = await runtimeOf(s, container).attach(container, { stdout, stderr });
  } catch (e: unknown) {
    return { error: `failed to attach: ${messageOf(e)}` };
  }
  session.onResize((size) => {
    if (config.tty)
      runtimeOf(s, container)
        .resizeTerminal(container, size)
        .catch(() => {});
  });
  if (session.stdin !== undefined) connectInput(session, attachment, config.stdin, inputOnce);
  const gone = new Promise<void>((resolve) => {
    if (session.gone.aborted) resolve();
    session.gone.addEventListener('abort', () => resolve(), { once: true });
  });
  try {
    await Promise.race([attachment.ended, gone]);
    return { exitCode: 0 };
  } catch (e: unknown) {
    return { error: messageOf(e) };
  } finally {
    attachment.detach();
  }
}

function connectInput(session: Session, attachment: Attachment, wanted: boolean, once: boolean): void {
  const { stdin } = session;
  if (stdin === undefined) return;
  if (!wanted) {
    stdin.resume();
    return;
  }
  stdin.on('data', (chunk: Buffer) => {
    stdin.pause();
    attachment.write(chunk, () => stdin.resume());
  });
  // Also when the client vanishes: it was the one whose input counted.
  if (once) stdin.once('close', () => attachment.endInput());
  if (once) stdin.once('end', () => attachment.endInput());
}
