import { ConnectionError, ErrorCode } from './errors.ts';
import { DEFAULT_MAX_FRAME, Setting, settingsOf } from './frames.ts';

const MAX_WINDOW = 2 ** 31 - 1;
const MAX_FRAME = 2 ** 24 - 1;
/** RFC 9113, 6.5.2. */
const DEFAULT_WINDOW = 65_535;
const DEFAULT_TABLE_BYTES = 4096;

/** What a client lets its server do. */
export class PeerSettings {
  #maxFrame = DEFAULT_MAX_FRAME;
  #initialWindow = DEFAULT_WINDOW;
  #tableHasShrunk = false;

  /** Of a frame's payload, bytes. */
  get maxFrame(): number {
    return this.#maxFrame;
  }

  /** Of a new stream, bytes. */
  get initialWindow(): number {
    return this.#initialWindow;
  }

  /**
   * @returns by how much the windows of open streams change
   * @throws ConnectionError for values that are none
   */
  apply(payload: Buffer): number {
    const before = this.#initialWindow;
    for (const [name, value] of settingsOf(payload)) {
      if (name === Setting.INITIAL_WINDOW_SIZE) {
        if (value > MAX_WINDOW)
          throw new ConnectionError(ErrorCode.FLOW_CONTROL_ERROR, `a window of ${value}`);
        this.#initialWindow = value;
      } else if (name === Setting.MAX_FRAME_SIZE) {
        if (value < DEFAULT_MAX_FRAME || value > MAX_FRAME) throw wrong(`frames of ${value}`);
        this.#maxFrame = value;
      } else if (name === Setting.ENABLE_PUSH) {
        if (value > 1) throw wrong(`push of ${value}`);
      } else if (name === Setting.HEADER_TABLE_SIZE) {
        this.#tableHasShrunk ||= value < DEFAULT_TABLE_BYTES;
      }
    }
    return this.#initialWindow - before;
  }

  /** Whether the next header block must begin with a change of the table's size (RFC 7541, 4.2). Once each time. */
  takeTableChange(): boolean {
    const has = this.#tableHasShrunk;
    this.#tableHasShrunk = false;
    return has;
  }
}

function wrong(what: string): ConnectionError {
  return new ConnectionError(ErrorCode.PROTOCOL_ERROR, `SETTINGS: ${what}`);
}
