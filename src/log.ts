import { type Logger, pino, stdTimeFunctions } from 'pino';

export type { Logger };

/**
 * JSON lines on stdout, which the journal keeps; ISO times and level names, since people read them too.
 */
export function createLogger(level: string): Logger {
  return pino(
    {
      level,
      base: null,
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: pino.stdSerializers.err },
    },
    pino.destination({ dest: 1, sync: true }),
  );
}
