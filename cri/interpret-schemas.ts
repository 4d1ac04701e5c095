import { config } from 'zod';

// To be evaluated before any schema is made. zod would compile a function for each object that it checks, which pays
// after some hundred checks; at a start each is used once.
config({ jitless: true });
